//! Which models are trusted, what the catalog says of those that are here, and which go first.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use provisioners_model_provisioner::{
    Cancel, Catalog, CatalogError, ModelProvisioner, ModelRef, StageError, VerifyFile,
};
use wire::ModelRecord;
use wire::config::{ModelsConfig, TrustPolicy};

use crate::server::{Reply, Server};
use crate::{COMMIT, Machine, REF, chain, good, hub, hub_says, model, plain, sha256};

fn strict() -> ModelsConfig {
    ModelsConfig { trust: TrustPolicy::Strict, ..ModelsConfig::default() }
}

fn stage(
    provisioner: &ModelProvisioner,
    reference: &ModelRef,
    pinned: Option<&str>,
) -> Result<ModelRecord, StageError> {
    provisioner.stage(reference, pinned, &|_| (), &Cancel::new())
}

/// MPROV-012
#[test]
fn strict_refuses_what_nobody_vouches_for_before_anything_is_fetched() {
    let server = Server::start(good);
    let machine = Machine::new(&server);
    let provisioner = || machine.provisioner().with_rules(strict(), None);
    let error = stage(&provisioner(), &plain(&server), None).unwrap_err();
    assert!(chain(&error).starts_with("UNTRUSTED_ARTIFACT") && error.is_wrong_digest(), "{}", chain(&error));
    assert!(server.seen().is_empty());
    let digest = sha256(model());
    assert!(stage(&provisioner(), &plain(&server), Some(&digest)).is_ok());
    // A hub that names no digest.
    let silent = Server::start(|seen, nth| match seen.method.as_str() {
        "HEAD" => Reply::status(200).with("X-Repo-Commit", COMMIT),
        _ => hub_says(seen).unwrap_or_else(|| good(seen, nth)),
    });
    let machine = Machine::new(&silent);
    let reference: ModelRef = REF.parse().unwrap();
    let provisioner = || machine.provisioner().with_rules(strict(), None);
    assert!(
        chain(&stage(&provisioner(), &reference, None).unwrap_err()).contains("nobody names its SHA-256")
    );
    assert!(silent.gets().is_empty());
    // What came while nobody asked is not good enough either.
    stage(&machine.provisioner(), &reference, None).unwrap();
    assert!(
        chain(&stage(&provisioner(), &reference, None).unwrap_err()).contains("nobody names its SHA-256")
    );
    assert!(stage(&provisioner(), &reference, Some(&digest)).is_ok());
}

struct Verifier {
    name: &'static str,
    agrees: bool,
    asked: AtomicUsize,
}

impl VerifyFile for Verifier {
    fn identity(&self) -> String {
        self.name.to_owned()
    }
    fn verify(&self, file: &Path, _: &Cancel) -> Result<(), String> {
        assert_eq!(std::fs::read(file).unwrap(), model(), "it gets the verified file");
        self.asked.fetch_add(1, Ordering::Relaxed);
        if self.agrees { Ok(()) } else { Err("no signature".to_owned()) }
    }
}

/// MPROV-012
#[test]
fn the_owners_program_is_asked_once_for_each_state_of_a_file_and_its_no_is_final() {
    let hub = hub(good);
    let machine = Machine::new(&hub);
    let with = |name, agrees| Arc::new(Verifier { name, agrees, asked: AtomicUsize::new(0) });
    let reference: ModelRef = REF.parse().unwrap();
    let ask = |verifier: &Arc<Verifier>| {
        let provisioner = machine.provisioner().with_rules(ModelsConfig::default(), Some(verifier.clone()));
        stage(&provisioner, &reference, None)
    };
    let refusing = with("a", false);
    for asked in 1..=2 {
        let error = ask(&refusing).unwrap_err();
        assert!(chain(&error).contains("is refused: no signature"), "{}", chain(&error));
        assert_eq!(refusing.asked.load(Ordering::Relaxed), asked, "a no is asked again");
    }
    let agreeing = with("a", true);
    let first = ask(&agreeing).unwrap();
    ask(&agreeing).unwrap();
    assert_eq!(agreeing.asked.load(Ordering::Relaxed), 1, "a yes is remembered");
    std::fs::File::options().write(true).open(&first.path).unwrap().set_modified(SystemTime::now()).unwrap();
    ask(&agreeing).unwrap();
    assert_eq!(agreeing.asked.load(Ordering::Relaxed), 2, "for that state of the file");
    let other = with("b", true);
    ask(&other).unwrap();
    assert_eq!(other.asked.load(Ordering::Relaxed), 1, "and by that program");
}

/// A model of its own digest: the same one with another last byte. Last used so many seconds ago.
fn fetched(machine: &Machine, server: &Server, number: u8, seconds: u64) -> ModelRecord {
    let reference = ModelRef::Https(format!("{}/files/{number}.gguf", server.base));
    let record = stage(&machine.provisioner(), &reference, None).unwrap();
    let mark = record.path.with_file_name("last-used");
    let at = SystemTime::now() - Duration::from_secs(seconds);
    std::fs::File::options().write(true).open(mark).unwrap().set_modified(at).unwrap();
    record
}

fn numbered() -> Server {
    Server::start(|seen, _| {
        let number: u8 = seen.path.trim_start_matches("/files/").trim_end_matches(".gguf").parse().unwrap();
        let mut bytes = model().to_vec();
        *bytes.last_mut().unwrap() = number;
        Reply::body(bytes)
    })
}

/// MPROV-014
#[test]
fn the_least_recently_used_goes_first_and_never_one_that_is_pinned_runs_or_was_just_used() {
    let server = numbered();
    let machine = Machine::new(&server);
    let ages = [9000, 8000, 7000, 6000, 5];
    let held: Vec<ModelRecord> =
        ages.iter().enumerate().map(|(n, age)| fetched(&machine, &server, n as u8, *age)).collect();
    let catalog = Catalog::new(machine.dir.path());
    let order: Vec<String> = catalog.list().into_iter().map(|model| model.digest).collect();
    assert_eq!(order, held.iter().rev().map(|record| record.digest.clone()).collect::<Vec<_>>());
    catalog.pin(&held[0].digest[..12], true).unwrap();
    let mut process = std::process::Command::new("tail").arg("-f").arg(&held[1].path).spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while !catalog.find(&held[1].digest).unwrap().in_use && Instant::now() < until {
        std::thread::yield_now();
    }
    let size = model().len() as u64;
    assert_eq!(catalog.make_room(5 * size, 0, None).unwrap(), Vec::<String>::new(), "they fit");
    assert_eq!(catalog.make_room(5 * size, size, None).unwrap(), [held[2].digest.clone()]);
    let error = catalog.make_room(3 * size, size, None).unwrap_err();
    assert!(matches!(error, CatalogError::Full { .. }), "{error}");
    let left: Vec<_> = catalog.list().into_iter().map(|model| model.digest).collect();
    assert_eq!(left, [4, 1, 0].map(|n: usize| held[n].digest.clone()), "what could go, went");
    let kept = |n: usize| catalog.remove(&held[n].digest).unwrap_err().to_string();
    assert!(kept(0).contains("it is pinned") && kept(1).contains("a running process uses it"));
    process.kill().unwrap();
    process.wait().unwrap();
    catalog.pin(&held[0].digest, false).unwrap();
    assert_eq!(catalog.remove(&held[0].digest).unwrap(), size);
    assert!(!held[0].path.exists() && catalog.find(&held[0].digest).is_err());
    let lines = std::fs::read_to_string(machine.dir.path().join("models/provenance.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let events: Vec<_> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
    assert_eq!(
        events,
        ["fetched", "fetched", "fetched", "fetched", "fetched", "evicted", "evicted", "removed"]
    );
    assert_eq!(
        (&lines[5]["digest"], &lines[0]["verified_by_source"]),
        (&held[2].digest.clone().into(), &false.into())
    );
}

/// MPROV-014
#[test]
fn a_model_that_the_quota_cannot_hold_is_refused_before_it_is_fetched() {
    let hub = Server::start(|seen, _| match seen.method.as_str() {
        "HEAD" => Reply::status(200).with("X-Repo-Commit", COMMIT).with("X-Linked-Size", "2147483648"),
        _ => hub_says(seen).unwrap_or_else(|| Reply::status(500)),
    });
    let machine = Machine::new(&hub);
    let rules = ModelsConfig { quota_gib: Some(1), ..ModelsConfig::default() };
    let provisioner = machine.provisioner().with_rules(rules, None);
    let error = chain(&stage(&provisioner, &REF.parse().unwrap(), None).unwrap_err());
    assert!(error.contains("2048 MiB do not fit into the quota of 1024 MiB"), "{error}");
    assert_eq!(hub.gets().len(), 0);
}

/// MPROV-013
#[test]
fn the_catalog_describes_what_is_here_and_finds_what_was_damaged() {
    let hub = hub(good);
    let machine = Machine::new(&hub);
    let record = machine.stage(REF).unwrap();
    stage(&machine.provisioner(), &ModelRef::Builtin("haiku".into()), None).unwrap();
    let catalog = Catalog::new(machine.dir.path());
    let models = catalog.list();
    assert_eq!(models.len(), 2);
    assert!(models.iter().any(|model| model.source == "builtin:haiku" && model.fetched_unix_ms.is_none()));
    let found = catalog.find(&record.digest[..8]).unwrap();
    assert_eq!((found.source.as_str(), found.verified_by_source, found.pinned), (REF, true, false));
    assert_eq!((found.size_bytes, found.ctx_max), (record.size_bytes, record.ctx_max));
    assert!(found.last_used_unix_ms >= found.fetched_unix_ms);
    assert_eq!(catalog.verify(&record.digest, &Cancel::new()).unwrap(), None);
    let mut bytes = model().to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&record.path, bytes).unwrap();
    let problem = catalog.verify(&record.digest, &Cancel::new()).unwrap().unwrap();
    assert!(problem.contains("changed or damaged"), "{problem}");
    for unknown in ["", "0", "../../etc", "ffffffffffff"] {
        assert!(matches!(catalog.find(unknown), Err(CatalogError::NotFound { .. })), "{unknown}");
        let said = catalog.find(unknown).unwrap_err().to_string();
        assert_eq!(said.contains("8 digits of its digest at least"), unknown.len() < 8, "{said}");
    }
    let error =
        catalog.remove(&models.iter().find(|m| m.source == "builtin:haiku").unwrap().digest).unwrap_err();
    assert!(error.to_string().contains("ships with the program"), "{error}");
}

/// MPROV-027, MPROV-013: a model that an earlier version fetched is in the catalog after an upgrade.
#[test]
fn a_manifest_of_every_released_version_is_read_and_a_later_one_is_not() {
    let unversioned = include_str!("../fixtures/released/manifest-unversioned.json");
    let first = include_str!("../fixtures/released/manifest-v1.json");
    let later = first.replace("\"schema_version\": 1", "\"schema_version\": 2");
    assert_ne!(later, first);
    let cache = tempfile::tempdir().unwrap();
    let bytes = b"not much of a model";
    let dir = cache.path().join("models").join(sha256(bytes));
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("pico.gguf"), bytes).unwrap();
    for text in [unversioned, first] {
        std::fs::write(dir.join("manifest.json"), text).unwrap();
        let found = Catalog::new(cache.path()).list().remove(0);
        assert_eq!((found.digest, found.size_bytes), (sha256(bytes), bytes.len() as u64));
        assert_eq!(found.source.as_str(), "hf:org/repo:Q4_K_M");
        assert_eq!(found.fetched_unix_ms, Some(1_795_864_244_000));
    }
    std::fs::write(dir.join("manifest.json"), &later).unwrap();
    assert_eq!(Catalog::new(cache.path()).list(), []);
    assert_eq!(std::fs::read_to_string(dir.join("manifest.json")).unwrap(), later);
}

fn set_age(path: &Path, age: Duration) {
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - age).unwrap();
}

const DAY: Duration = Duration::from_secs(24 * 3600);

/// MPROV-024
#[test]
fn a_download_that_nobody_continues_is_shown_and_then_removed_unless_somebody_fetches_it() {
    let at = model().len() / 3;
    let hub = hub(move |seen, nth| if nth == 0 { good(seen, nth).cut_after(at) } else { good(seen, nth) });
    let mut machine = Machine::new(&hub);
    machine.patience.tries = 1;
    machine.stage(REF).unwrap_err();
    let catalog = Catalog::new(machine.dir.path());
    let shown = catalog.unfinished();
    assert_eq!((shown.len(), shown[0].bytes as usize, shown[0].in_use), (1, at, false));
    assert_eq!(shown[0].bytes_total, Some(model().len() as u64));
    assert!(shown[0].url.starts_with(&hub.base), "{}", shown[0].url);
    assert_eq!(catalog.collect_unfinished(DAY).unwrap(), [], "it is young");
    set_age(&shown[0].path, 8 * DAY);
    assert_eq!(catalog.collect_unfinished(9 * DAY).unwrap(), [], "whoever asks says how old");
    let lock = std::fs::File::options().write(true).open(shown[0].path.with_extension("lock")).unwrap();
    lock.try_lock().unwrap();
    assert!(catalog.unfinished()[0].in_use);
    assert_eq!(catalog.collect_unfinished(7 * DAY).unwrap(), [], "somebody fetches it");
    drop(lock);
    let gone = catalog.collect_unfinished(7 * DAY).unwrap();
    assert_eq!((gone.len(), machine.partials().len(), catalog.unfinished().len()), (1, 0, 0));
    machine.stage(REF).unwrap();
    assert_eq!(hub.gets()[1].from(), 0, "it begins anew");
}

/// MPROV-024
#[test]
fn a_later_file_of_a_split_set_is_in_use_while_the_set_is_fetched() {
    let dir = tempfile::tempdir().unwrap();
    let partials = dir.path().join("models/.partial");
    std::fs::create_dir_all(&partials).unwrap();
    let key = |url: &str| sha256(url.as_bytes())[..32].to_owned();
    let (first, second) = ("https://h/d/m-00001-of-00002.gguf", "https://h/d/m-00002-of-00002.gguf");
    let part = partials.join(format!("{}.part", key(second)));
    std::fs::write(&part, "some bytes").unwrap();
    let whole = serde_json::json!({ "url": second, "etag": null, "total": 100 });
    std::fs::write(part.with_extension("json"), whole.to_string()).unwrap();
    set_age(&part, 30 * DAY);
    let lock = std::fs::File::create(partials.join(format!("{}.lock", key(first)))).unwrap();
    lock.try_lock().unwrap();
    let catalog = Catalog::new(dir.path());
    assert_eq!(catalog.collect_unfinished(DAY).unwrap(), []);
    drop(lock);
    assert_eq!(catalog.collect_unfinished(DAY).unwrap().len(), 1);
    assert!(!part.exists() && !part.with_extension("json").exists());
}

/// MPROV-027, MPROV-009: what a reference led to is known after an upgrade, and what a later version noted is
/// neither used nor written over.
#[test]
fn an_index_of_every_released_version_is_read_and_a_later_one_is_refused_and_kept() {
    let unversioned = include_str!("../fixtures/released/index-unversioned.json");
    let first = include_str!("../fixtures/released/index-v1.json");
    let hub = hub(good);
    let machine = Machine::new(&hub);
    let path = machine.stage(REF).unwrap().path;
    let index =
        std::fs::read_dir(machine.dir.path().join("models/index")).unwrap().next().unwrap().unwrap().path();
    // As it was written there, of the model that is here.
    let own = |text: &str| {
        let mut kept: serde_json::Value = serde_json::from_str(text).unwrap();
        kept["path"] = path.to_str().unwrap().into();
        kept["sha256"] = sha256(model()).into();
        kept["size"] = model().len().into();
        serde_json::to_string_pretty(&kept).unwrap()
    };
    let written: serde_json::Value = serde_json::from_slice(&std::fs::read(&index).unwrap()).unwrap();
    assert_eq!(
        written,
        serde_json::from_str::<serde_json::Value>(&own(first)).unwrap(),
        "the newest is kept"
    );
    let asked = hub.seen().len();
    for text in [unversioned, first] {
        std::fs::write(&index, own(text)).unwrap();
        assert_eq!(machine.stage(REF).unwrap().path, path);
        assert_eq!(machine.provisioner().staged_before(&REF.parse().unwrap()), Some(path.clone()));
    }
    let later = own(first).replace("\"schema_version\": 1", "\"schema_version\": 2");
    std::fs::write(&index, &later).unwrap();
    let error = machine.refusal(REF);
    let told = format!("{} was written by a later version of this program (format 2", index.display());
    assert!(error.contains(&told) && error.contains("LLAMA_ORCH_CACHE"), "{error}");
    let foreseen = machine.provisioner().foresee(&REF.parse().unwrap(), None).unwrap_err();
    assert!(chain(&foreseen).contains(&told), "{foreseen}");
    assert_eq!(std::fs::read_to_string(&index).unwrap(), later);
    // A manifest of the future, whatever the index says.
    std::fs::write(&index, own(first)).unwrap();
    let manifest = path.with_file_name("manifest.json");
    let text = std::fs::read_to_string(&manifest).unwrap();
    let later = text.replace("\"schema_version\": 1", "\"schema_version\": 2");
    std::fs::write(&manifest, &later).unwrap();
    for known in [true, false] {
        let error = machine.refusal(REF);
        assert!(error.contains("manifest.json was written by a later version"), "{known}: {error}");
        assert_eq!(std::fs::read_to_string(&manifest).unwrap(), later);
        std::fs::remove_file(&index).ok();
    }
    assert_eq!(hub.gets().len(), 1, "nothing was fetched again");
    assert!(hub.seen().len() > asked, "the last of them asked the hub which model it is");
}
