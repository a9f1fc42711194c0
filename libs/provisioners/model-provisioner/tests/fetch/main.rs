//! Models over the network, from the outside, against servers that misbehave in all the usual ways.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step of a test should panic")]

mod catalog;
mod inject;
mod pack;
mod server;
mod settled;
mod several;
mod split;
mod token;

use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use provisioners_model_provisioner::{
    Cancel, Connections, ModelProvisioner, ModelRef, Network, Patience, StageError, StageEvent,
};
use server::{Reply, Seen, Server};
use sha2::{Digest as _, Sha256};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const REF: &str = "hf:org/repo:Q4_K_M";
const FILE: &str = "tiny-q4_k_m.gguf";

/// A model of a few MiB.
fn model() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.gguf");
        gguf_random::Shape { width: 512, layers: 2, ..Default::default() }.write(&path).unwrap();
        std::fs::read(path).unwrap()
    })
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// What the hub says about the model, whatever comes when its bytes are asked for.
fn hub_says(seen: &Seen) -> Option<Reply> {
    if seen.path.starts_with("/api/models/org/repo/tree/main?") {
        let entry = |path: &str| serde_json::json!({"type": "file", "path": path, "oid": "x", "size": 1});
        let list =
            [entry("README.md"), entry(FILE), entry("tiny-q8_0.gguf"), entry("big-F16-00001-of-00002.gguf")];
        return Some(Reply::body(serde_json::to_vec(&list).unwrap()));
    }
    (seen.method == "HEAD").then(|| {
        let reply =
            Reply::status(302).with("Location", "https://store.example/x").with("X-Repo-Commit", COMMIT);
        let etag = format!("\"{}\"", sha256(model()));
        reply.with("X-Linked-Etag", &etag).with("X-Linked-Size", &model().len().to_string())
    })
}

fn hub(bytes: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static) -> Server {
    Server::start(move |seen, nth| hub_says(seen).unwrap_or_else(|| bytes(seen, nth)))
}

fn good(seen: &Seen, _: usize) -> Reply {
    Reply::ranged(seen, model(), "\"v1\"")
}

/// A machine with its own cache.
struct Machine {
    dir: tempfile::TempDir,
    vars: Vec<(&'static str, String)>,
    patience: Patience,
    connections: Connections,
}

impl Machine {
    fn new(server: &Server) -> Self {
        let patience =
            Patience { first_pause: Duration::ZERO, longest_pause: Duration::ZERO, ..Patience::default() };
        let (dir, vars) = (tempfile::tempdir().unwrap(), vec![("HF_ENDPOINT", server.base.clone())]);
        Self { dir, vars, patience, connections: Connections::default() }
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.vars.push((name, value.to_owned()));
        self
    }

    fn provisioner(&self) -> ModelProvisioner {
        let var = |name: &str| self.vars.iter().find(|(n, _)| *n == name).map(|(_, v)| v.into());
        let network = Network::from_vars(var).with_patience(self.patience);
        let network = network.with_connections(self.connections);
        ModelProvisioner::new(self.dir.path()).with_network(network)
    }

    fn stage(&self, reference: &str) -> Result<wire::ModelRecord, StageError> {
        self.stage_with(&reference.parse().unwrap(), None, &|_| ())
    }

    fn stage_with(
        &self,
        reference: &ModelRef,
        pinned: Option<&str>,
        on_event: &dyn Fn(StageEvent),
    ) -> Result<wire::ModelRecord, StageError> {
        self.provisioner().stage(reference, pinned, on_event, &Cancel::new())
    }

    fn refusal(&self, reference: &str) -> String {
        chain(&self.stage(reference).unwrap_err())
    }

    /// Models under final names.
    fn finals(&self) -> Vec<PathBuf> {
        self.files(|path| path.extension().is_some_and(|e| e == "gguf"))
    }

    fn partials(&self) -> Vec<PathBuf> {
        self.files(|path| path.extension().is_some_and(|e| e == "part"))
    }

    fn files(&self, wanted: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
        let dirs = std::fs::read_dir(self.dir.path().join("models")).into_iter().flatten().flatten();
        let files = dirs.flat_map(|dir| std::fs::read_dir(dir.path()).into_iter().flatten().flatten());
        files.map(|file| file.path()).filter(|path| wanted(path)).collect()
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let source = error.source().map(|inner| format!(": {}", chain(inner))).unwrap_or_default();
    format!("{error}{source}")
}

/// A plain file, addressed as `https:` references are; the rule lets the tests' hub be plain http.
fn plain(server: &Server) -> ModelRef {
    ModelRef::Https(format!("{}/files/tiny.gguf", server.base))
}

/// MPROV-006
#[test]
fn a_hub_model_is_fetched_verified_and_kept_under_its_digest() {
    let hub = hub(good);
    let machine = Machine::new(&hub);
    let events = Mutex::new(Vec::new());
    let record =
        machine.stage_with(&REF.parse().unwrap(), None, &|event| events.lock().unwrap().push(event)).unwrap();
    assert_eq!(record.digest, sha256(model()));
    assert_eq!(record.path, machine.dir.path().join("models").join(&record.digest).join(FILE));
    assert_eq!(record.model_ref, REF);
    let manifest = std::fs::read_to_string(record.path.with_file_name("manifest.json")).unwrap();
    assert!(manifest.contains(COMMIT) && manifest.contains("\"verified\""), "{manifest}");
    assert!(manifest.contains("\"schema_version\": 1"), "{manifest}");
    let last = hub.gets().pop().unwrap();
    assert!(last.path.contains(&format!("/resolve/{COMMIT}/")), "the commit is asked, not the branch");
    let total = model().len() as u64;
    let events = events.into_inner().unwrap();
    assert!(events.iter().any(|event| matches!(event, StageEvent::Progress(p)
        if p.description.starts_with("fetching tiny-q4_k_m.gguf: ") && p.bytes_done == total && p.bytes_total == total)));
    assert_eq!(machine.partials(), Vec::<PathBuf>::new());
}

/// MPROV-009
#[test]
fn what_is_cached_is_staged_without_any_request() {
    let hub = hub(good);
    let machine = Machine::new(&hub);
    let first = machine.stage(REF).unwrap();
    let requests = hub.seen().len();
    assert_eq!(machine.stage(REF).unwrap(), first);
    assert_eq!(hub.seen().len(), requests);
    assert_eq!(machine.provisioner().staged_before(&REF.parse().unwrap()), Some(first.path.clone()));
    // Damaged, it is fetched again instead of being used.
    let mut bytes = model().to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&first.path, bytes).unwrap();
    assert_eq!(machine.stage(REF).unwrap(), first);
    assert_eq!(hub.gets().len(), 2);
}

/// MPROV-006
#[test]
fn a_download_that_was_cut_is_resumed_and_almost_nothing_comes_twice() {
    let at = model().len() * 37 / 100;
    let hub = hub(move |seen, nth| if nth == 0 { good(seen, nth).cut_after(at) } else { good(seen, nth) });
    let mut machine = Machine::new(&hub);
    machine.patience.tries = 1;
    let error = machine.refusal(REF);
    assert!(error.contains("is kept"), "{error}");
    // As after a kill: what came is there, and nothing under a final name.
    assert_eq!((machine.partials().len(), machine.finals().len()), (1, 0));
    assert_eq!(machine.stage(REF).unwrap().digest, sha256(model()));
    let again = &hub.gets()[1];
    assert!(again.from() <= at && at - again.from() <= 1 << 20, "{} of {at}", again.from());
    assert_eq!(again.header("if-range"), Some("\"v1\""));
    assert_eq!(machine.partials(), Vec::<PathBuf>::new());
}

/// MPROV-006
#[test]
fn within_one_staging_it_goes_on_by_itself() {
    let step = model().len() / 7;
    let hub = hub(move |seen, nth| if nth < 6 { good(seen, nth).cut_after(step) } else { good(seen, nth) });
    assert!(Machine::new(&hub).stage(REF).is_ok(), "six cuts with progress are not five failures");
    let starts: Vec<usize> = hub.gets().iter().map(Seen::from).collect();
    assert!(starts.windows(2).all(|pair| pair[0] < pair[1]), "{starts:?}");
}

/// MPROV-006
#[test]
fn a_server_without_ranges_is_read_from_the_start() {
    let at = model().len() / 2;
    let hub = hub(move |_, nth| {
        let whole = Reply::body(model()).with("ETag", "\"v1\"");
        if nth == 0 { whole.cut_after(at) } else { whole }
    });
    assert_eq!(Machine::new(&hub).stage(REF).unwrap().digest, sha256(model()));
    assert!(hub.gets()[1].from() > 0, "it asked for the rest");
}

/// MPROV-006, MPROV-007
#[test]
fn a_file_that_changes_on_the_way_is_never_a_mixture() {
    for ignores_if_range in [false, true] {
        let old: Vec<u8> = model().iter().map(|b| !b).collect();
        let server = Server::start(move |seen, nth| match nth {
            0 => Reply::ranged(seen, &old, "\"old\"").cut_after(old.len() / 2),
            1 if ignores_if_range => Reply::rest(seen, model(), "\"new\""),
            _ => Reply::ranged(seen, model(), "\"new\""),
        });
        let record = Machine::new(&server).stage_with(&plain(&server), None, &|_| ()).unwrap();
        assert_eq!(record.digest, sha256(model()), "ignores If-Range: {ignores_if_range}");
    }
}

/// MPROV-006
#[test]
fn three_server_errors_are_survived_and_five_are_reported() {
    let busy =
        |limit| move |seen: &Seen, nth: usize| if nth < limit { Reply::status(500) } else { good(seen, nth) };
    assert!(Machine::new(&hub(busy(3))).stage(REF).is_ok());
    let hub = hub(busy(usize::MAX));
    let error = Machine::new(&hub).refusal(REF);
    assert!(error.contains("in 5 tries") && error.contains("500"), "{error}");
    assert_eq!(hub.gets().len(), 5);
}

/// MPROV-006
#[test]
fn a_stalled_transfer_is_given_up_and_resumed() {
    let hub = hub(|seen, nth| if nth == 0 { good(seen, nth).stall_after(1 << 20) } else { good(seen, nth) });
    let mut machine = Machine::new(&hub);
    machine.patience.stall = Duration::from_millis(300);
    assert_eq!(machine.stage(REF).unwrap().digest, sha256(model()));
    assert!(hub.gets()[1].from() > 0);
}

/// MPROV-006
#[test]
fn cancel_ends_a_hanging_download_within_two_seconds() {
    // A machine that is busy can make any one of them slow.
    let times: Vec<Duration> = (0..3).map(|_| time_to_cancel()).collect();
    assert!(times.iter().any(|took| *took < Duration::from_secs(2)), "{times:?}");
}

fn time_to_cancel() -> Duration {
    let cancel = Cancel::new();
    let remote = cancel.clone();
    let (tell, told) = sync_channel(1);
    let hub = hub(move |seen, nth| {
        remote.cancel();
        tell.send(Instant::now()).unwrap();
        good(seen, nth).stall_after(1000)
    });
    let machine = Machine::new(&hub);
    let error = machine.provisioner().stage(&REF.parse().unwrap(), None, &|_| (), &cancel).unwrap_err();
    let took = told.recv().unwrap().elapsed();
    assert!(error.is_cancelled(), "{error}");
    assert_eq!(machine.finals(), Vec::<PathBuf>::new());
    took
}

/// MPROV-010
#[test]
fn a_redirect_to_plain_http_is_refused() {
    let hub = hub(|_, _| Reply::status(302).with("Location", "http://models.example/m.gguf?sig=secret"));
    let error = Machine::new(&hub).refusal(REF);
    assert!(
        error.contains("http://models.example/m.gguf is refused") && !error.contains("secret"),
        "{error}"
    );
    assert_eq!(hub.gets().len(), 1, "not tried again");
}

/// MPROV-010
#[test]
fn the_token_goes_to_the_hub_and_not_where_it_redirects_to() {
    let store = Server::start(good);
    let location = format!("{}/blob", store.base);
    let hub = hub(move |_, _| Reply::status(302).with("Location", &location));
    let machine = Machine::new(&hub).with("HF_TOKEN", "hf_secret");
    machine.stage(REF).unwrap();
    assert!(!hub.seen().is_empty() && !store.seen().is_empty());
    assert!(hub.seen().iter().all(|seen| seen.header("authorization") == Some("Bearer hf_secret")));
    assert!(store.seen().iter().all(|seen| seen.header("authorization").is_none()));
}

/// MPROV-007
#[test]
fn another_length_than_the_hub_announced_is_refused_before_a_byte_is_kept() {
    let hub = hub(|_, _| Reply::body([model(), b"more"].concat()));
    let machine = Machine::new(&hub);
    let error = machine.refusal(REF);
    assert!(error.contains(&format!("{} bytes where {} were", model().len() + 4, model().len())), "{error}");
    assert_eq!(machine.finals(), Vec::<PathBuf>::new());
}

/// MPROV-007
#[test]
fn bytes_with_another_digest_never_get_a_final_name() {
    let hub = hub(|_, _| {
        let mut bytes = model().to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        Reply::body(bytes)
    });
    let machine = Machine::new(&hub);
    let error = machine.stage(REF).unwrap_err();
    assert!(error.is_wrong_digest() && chain(&error).contains(&sha256(model())), "{}", chain(&error));
    assert_eq!((machine.finals().len(), machine.partials().len()), (0, 0));
}

/// MPROV-004, MPROV-007
#[test]
fn a_configured_digest_is_compared_and_without_one_a_notice_says_so() {
    let server = Server::start(good);
    let machine = Machine::new(&server);
    let wrong = "0".repeat(64);
    let error = machine.stage_with(&plain(&server), Some(&wrong), &|_| ()).unwrap_err();
    assert!(error.is_wrong_digest() && machine.finals().is_empty(), "{}", chain(&error));
    let notices = Mutex::new(Vec::new());
    let listen = |event| {
        if let StageEvent::Notice(text) = event {
            notices.lock().unwrap().push(text);
        }
    };
    let record = machine.stage_with(&plain(&server), None, &listen).unwrap();
    let notices = notices.into_inner().unwrap().join("\n");
    assert!(notices.contains("names no SHA-256") && notices.contains(&record.digest), "{notices}");
    let manifest = std::fs::read_to_string(record.path.with_file_name("manifest.json")).unwrap();
    assert!(manifest.contains("unverified_by_source"), "{manifest}");
    let requests = server.seen().len();
    assert_eq!(machine.stage_with(&plain(&server), Some(&record.digest), &|_| ()).unwrap(), record);
    assert_eq!(server.seen().len(), requests, "the pin names what is there");
}

/// MPROV-007
#[test]
fn a_page_instead_of_a_model_is_not_published() {
    let server = Server::start(|_, _| Reply::body("<html>please log in</html>"));
    let machine = Machine::new(&server);
    let error = chain(&machine.stage_with(&plain(&server), None, &|_| ()).unwrap_err());
    assert!(error.contains("not a GGUF file"), "{error}");
    assert_eq!((machine.finals().len(), machine.partials().len()), (0, 0));
}

/// MPROV-006
#[test]
fn a_model_that_does_not_fit_is_refused_before_it_is_fetched() {
    let hub = Server::start(|seen, _| match seen.method.as_str() {
        "HEAD" => {
            Reply::status(200).with("X-Repo-Commit", COMMIT).with("X-Linked-Size", "1152921504606846976")
        }
        _ => hub_says(seen).unwrap_or_else(|| Reply::status(500)),
    });
    let error = Machine::new(&hub).refusal(REF);
    assert!(error.contains("MiB are free"), "{error}");
    assert_eq!(hub.gets().len(), 0);
}

/// MPROV-010
#[test]
fn each_refusal_of_the_hub_has_its_own_plain_message() {
    for (status, code, message, expected) in [
        (401, "GatedRepo", "", "is gated: accept its conditions"),
        (403, "", "", "is gated: accept its conditions"),
        (401, "RepoNotFound", "", "has no repository org/repo, or it is private"),
        (401, "RepoNotFound", "", "it was asked without a token: set HF_TOKEN"),
        (404, "RepoNotFound", "", "has no repository org/repo"),
        (
            401,
            "",
            "Invalid credentials in Authorization header",
            "does not accept the token it was asked with",
        ),
        (404, "RevisionNotFound", "", "has no revision main"),
        (418, "", "", "HTTP status 418"),
    ] {
        let reply = Reply::status(status).with("X-Error-Code", code).with("X-Error-Message", message);
        let hub = Server::start(move |_, _| reply.clone());
        let error = Machine::new(&hub).refusal(REF);
        assert!(error.contains(expected), "{status} {code}: {error}");
        assert_eq!(hub.seen().len(), 1, "a refusal is not tried again");
    }
    let missing = Server::start(|_, _| Reply::status(404).with("X-Error-Code", "EntryNotFound"));
    let error = Machine::new(&missing).refusal("hf:org/repo/dir/m.gguf@v1");
    assert!(error.contains("has no file dir/m.gguf at revision v1"), "{error}");
}

/// MPROV-010
#[test]
fn a_missing_quantisation_lists_the_ones_there_are_and_half_a_split_one_is_refused() {
    let hub = hub(good);
    let machine = Machine::new(&hub);
    let error = machine.refusal("hf:org/repo:Q5_K_S");
    assert!(error.contains("no quantisation Q5_K_S; there are: F16, Q4_K_M, Q8_0"), "{error}");
    let error = machine.refusal("hf:org/repo:F16");
    assert!(error.contains("the repository has no big-F16-00002-of-00002.gguf"), "{error}");
    assert_eq!(hub.gets().len(), 0);
}

/// MPROV-008
#[test]
fn two_who_want_the_same_model_make_one_download() {
    let (open, gate) = sync_channel::<()>(1);
    let gate = Mutex::new(gate);
    let hub = hub(move |seen, nth| {
        // Bytes come when the other one waits.
        gate.lock().unwrap().recv_timeout(Duration::from_secs(20)).unwrap();
        good(seen, nth)
    });
    let machine = Machine::new(&hub);
    let on_event = |event| {
        if let StageEvent::Progress(p) = event
            && p.description.starts_with("waiting for another download")
        {
            open.send(()).unwrap();
        }
    };
    let stage = || machine.stage_with(&REF.parse().unwrap(), None, &on_event).unwrap();
    let (one, two) = std::thread::scope(|scope| {
        let other = scope.spawn(stage);
        (stage(), other.join().unwrap())
    });
    assert_eq!(one, two);
    assert_eq!(hub.gets().len(), 1);
}

/// MPROV-009
#[test]
fn a_file_in_the_hub_cache_is_used_if_it_has_the_right_bytes() {
    let hub = hub(good);
    let cache = tempfile::tempdir().unwrap();
    let snapshot = cache.path().join(format!("models--org--repo/snapshots/{COMMIT}"));
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::write(snapshot.join(FILE), model()).unwrap();
    let place = cache.path().to_str().unwrap();
    let machine = Machine::new(&hub).with("HF_HUB_CACHE", place);
    assert_eq!(machine.stage(REF).unwrap().path, snapshot.join(FILE));
    assert_eq!(hub.gets().len(), 0);
    let mut damaged = model().to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    for (gets, bytes) in [(1, &damaged[..]), (2, &model()[..model().len() - 1])] {
        std::fs::write(snapshot.join(FILE), bytes).unwrap();
        let other = Machine::new(&hub).with("HF_HUB_CACHE", place);
        assert!(other.stage(REF).unwrap().path.starts_with(other.dir.path()));
        assert_eq!(hub.gets().len(), gets);
    }
}

/// MPROV-009
#[test]
fn without_a_network_the_hub_cache_is_enough_if_its_bytes_are_what_their_name_says() {
    let hub = hub(good);
    let cache = tempfile::tempdir().unwrap();
    let home = cache.path().join("models--org--repo");
    let blob = home.join("blobs").join(sha256(model()));
    let snapshot = home.join("snapshots").join(COMMIT);
    for dir in [blob.parent().unwrap(), &snapshot, &home.join("refs")] {
        std::fs::create_dir_all(dir).unwrap();
    }
    std::fs::write(&blob, model()).unwrap();
    std::os::unix::fs::symlink(&blob, snapshot.join(FILE)).unwrap();
    std::fs::write(home.join("refs/main"), COMMIT).unwrap();
    let machine = Machine::new(&hub).with("HF_HUB_CACHE", cache.path().to_str().unwrap());
    let stage = |reference: &str| {
        let provisioner = machine.provisioner().offline(true);
        provisioner.stage(&reference.parse().unwrap(), None, &|_| (), &Cancel::new())
    };
    assert_eq!(stage(REF).unwrap().path, snapshot.join(FILE));
    assert_eq!(stage(&format!("{REF}@{COMMIT}")).unwrap().digest, sha256(model()));
    let offline = |reference: &str| chain(&stage(reference).unwrap_err()).contains("offline: it is not in");
    assert!(offline("hf:org/repo:Q8_0") && offline("hf:org/repo:Q4_K_M@v1"));
    let mut bytes = model().to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&blob, bytes).unwrap();
    assert!(offline(REF), "damaged");
    assert!(hub.seen().is_empty());
}
