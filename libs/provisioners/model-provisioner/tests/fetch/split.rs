//! Models in several files: whole or not at all, described as one, and never more than one of their files
//! fetched again after a break.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use provisioners_model_provisioner::{Cancel, Catalog, ModelProvisioner, ModelRef, Network, StageError};

use crate::server::{Reply, Seen, Server};
use crate::{COMMIT, Machine, chain, sha256};

const FILES: usize = 3;

/// Name and bytes of each file.
fn set() -> &'static [(String, Vec<u8>)] {
    static SET: OnceLock<Vec<(String, Vec<u8>)>> = OnceLock::new();
    SET.get_or_init(|| {
        let shape = gguf_random::Shape { width: 256, layers: 3, ..Default::default() };
        shape.to_split("big-Q4_K_M", FILES)
    })
}

fn set_digest() -> String {
    sha256(set().iter().map(|(_, bytes)| format!("{}\n", sha256(bytes))).collect::<String>().as_bytes())
}

fn size() -> u64 {
    set().iter().map(|(_, bytes)| bytes.len() as u64).sum()
}

fn file_of(path: &str) -> Option<usize> {
    let path = path.split('?').next().unwrap_or_default();
    set().iter().position(|(name, _)| path.ends_with(name.as_str()))
}

/// Lists and describes the set, and its files in another directory of the repository without the last.
fn says(seen: &Seen) -> Option<Reply> {
    if seen.path.starts_with("/api/") {
        let names = set().iter().map(|(name, _)| format!("Q4/{name}"));
        let torn = ["torn/x-Q8_0-00001-of-00002.gguf".to_owned()];
        let entry = |path: String| serde_json::json!({"type": "file", "path": path, "oid": "x", "size": 1});
        let list: Vec<_> = names.chain(torn).map(entry).collect();
        return Some(Reply::body(serde_json::to_vec(&list).unwrap()));
    }
    (seen.method == "HEAD").then(|| match file_of(&seen.path) {
        None => Reply::status(404),
        Some(file) => {
            let etag = format!("\"{}\"", sha256(&set()[file].1));
            let reply = Reply::status(200).with("X-Repo-Commit", COMMIT).with("X-Linked-Etag", &etag);
            reply.with("X-Linked-Size", &set()[file].1.len().to_string())
        }
    })
}

fn hub(bytes: impl Fn(&Seen, usize, &'static [u8]) -> Reply + Send + Sync + 'static) -> Server {
    Server::start(move |seen, nth| {
        says(seen).unwrap_or_else(|| match file_of(&seen.path) {
            None => Reply::status(404),
            Some(file) => bytes(seen, nth, &set()[file].1),
        })
    })
}

fn good_hub() -> Server {
    hub(|seen, _, bytes| Reply::ranged(seen, bytes, "\"v1\""))
}

const REF: &str = "hf:org/repo:Q4_K_M";

/// MPROV-021
#[test]
fn a_split_model_is_fetched_whole_described_as_one_and_staged_again_without_a_request() {
    let server = good_hub();
    let machine = Machine::new(&server);
    let events = std::sync::Mutex::new(Vec::new());
    let record = machine
        .stage_with(&REF.parse().unwrap(), None, &|event| events.lock().unwrap().push(format!("{event:?}")))
        .unwrap();
    assert!(record.path.ends_with(format!("{}/big-Q4_K_M-00001-of-00003.gguf", set_digest())));
    assert_eq!((record.digest.as_str(), record.size_bytes), (set_digest().as_str(), size()));
    assert_eq!((record.parts.len(), record.layers, record.heads), (FILES, Some(3), Some(4)));
    for (part, (_, bytes)) in record.parts.iter().zip(set()) {
        assert_eq!((std::fs::read(&part.path).unwrap(), &part.digest), (bytes.clone(), &sha256(bytes)));
    }
    // Progress counts over all of its files.
    let last = format!("bytes_done: {0}, bytes_total: {0}", size());
    assert!(events.into_inner().unwrap().iter().any(|event| event.contains(&last)));
    let asked = server.seen().len();
    assert_eq!(machine.stage(REF).unwrap(), record);
    assert_eq!(machine.stage_with(&REF.parse().unwrap(), Some(&set_digest()), &|_| ()).unwrap(), record);
    assert_eq!(server.seen().len(), asked, "no request");
    let catalog = Catalog::new(machine.dir.path());
    let listed = catalog.list();
    assert_eq!((listed.len(), listed[0].files, listed[0].size_bytes), (1, 3, size()));
    assert_eq!(listed[0].problem, None);
    assert_eq!(catalog.verify(&record.digest, &Cancel::new()).unwrap(), None);
    let second = &record.parts[1].path;
    let mut bytes = std::fs::read(second).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(second, bytes).unwrap();
    let problem = catalog.verify(&record.digest, &Cancel::new()).unwrap().unwrap();
    assert!(problem.contains("00002-of-00003"), "{problem}");
    assert_eq!(machine.stage(REF).unwrap(), record, "what was damaged is fetched again");
    assert_eq!(server.gets().len(), FILES + 1, "and nothing else");
    assert_eq!(catalog.remove(&record.digest).unwrap(), size());
    assert!(machine.finals().is_empty());
}

/// MPROV-021
#[test]
fn a_break_in_a_later_file_leaves_nothing_to_use_and_costs_that_file_alone() {
    let server = hub(|seen, nth, bytes| match nth {
        1 => Reply::ranged(seen, bytes, "\"v1\"").cut_after(bytes.len() / 2),
        _ => Reply::ranged(seen, bytes, "\"v1\""),
    });
    let mut machine = Machine::new(&server);
    machine.patience.tries = 1;
    assert!(machine.refusal(REF).contains("could not be fetched in 1 tries"));
    assert!(machine.finals().is_empty(), "no file of it has a final name");
    assert_eq!(Catalog::new(machine.dir.path()).list(), vec![]);
    machine.stage(REF).unwrap();
    let gets = server.gets();
    let again: Vec<_> = gets[2..].iter().map(|seen| (file_of(&seen.path).unwrap(), seen.from())).collect();
    assert_eq!(again.iter().map(|(file, _)| *file).collect::<Vec<_>>(), [1, 2]);
    assert!(again[0].1 > set()[1].1.len() / 4, "it goes on in the middle: {again:?}");
}

/// MPROV-021, MPROV-007
#[test]
fn a_wrong_file_in_a_set_is_refused_and_no_other_gets_a_final_name() {
    let server = hub(|seen, _, bytes| {
        let mut bytes = bytes.to_vec();
        if seen.path.contains("00003-of") {
            *bytes.last_mut().unwrap() ^= 1;
        }
        Reply::body(bytes)
    });
    let machine = Machine::new(&server);
    let error = machine.refusal(REF);
    assert!(error.contains("00003-of-00003") && error.contains("expected"), "{error}");
    assert!(machine.finals().is_empty());
}

/// MPROV-021
#[test]
fn a_publication_that_was_interrupted_goes_on_without_fetching_what_is_in_place() {
    let server = good_hub();
    let machine = Machine::new(&server);
    let record = machine.stage(REF).unwrap();
    // As after a kill between two renames: the last file has no final name, the index knows nothing.
    std::fs::remove_file(&record.parts[2].path).unwrap();
    std::fs::remove_dir_all(machine.dir.path().join("models/index")).unwrap();
    assert_eq!(Catalog::new(machine.dir.path()).list(), vec![], "a set without one of its files is none");
    assert_eq!(machine.stage(REF).unwrap(), record);
    assert_eq!(server.gets().len(), FILES + 1);
}

/// MPROV-021
#[test]
fn a_set_that_is_not_complete_at_the_hub_and_a_file_in_its_middle_are_refused() {
    let machine = Machine::new(&good_hub());
    let torn = machine.refusal("hf:org/repo:Q8_0");
    assert!(torn.contains("has no torn/x-Q8_0-00002-of-00002.gguf"), "{torn}");
    let middle = machine.refusal(&format!("hf:org/repo/Q4/{}", set()[1].0));
    assert!(middle.contains("name the first, Q4/big-Q4_K_M-00001-of-00003.gguf"), "{middle}");
    let named = machine.stage(&format!("hf:org/repo/Q4/{}", set()[0].0)).unwrap();
    assert_eq!(named.parts.len(), FILES);
}

/// MPROV-021, MPROV-004
#[test]
fn a_set_at_an_address_is_found_beside_its_first_file_and_held_to_its_pin() {
    let server = hub(|seen, _, bytes| Reply::ranged(seen, bytes, "\"v1\""));
    let address = ModelRef::Https(format!("{}/dir/{}?token=a", server.base, set()[0].0));
    let machine = Machine::new(&server);
    let wrong = machine.stage_with(&address, Some(&"0".repeat(64)), &|_| ()).unwrap_err();
    assert!(chain(&wrong).contains(&set_digest()), "{}", chain(&wrong));
    assert!(machine.finals().is_empty());
    let record = machine.stage_with(&address, Some(&set_digest()), &|_| ()).unwrap();
    assert_eq!((record.digest, record.parts.len()), (set_digest(), FILES));
    assert!(server.gets().iter().all(|seen| seen.path.ends_with(".gguf?token=a")));
}

/// MPROV-021
#[test]
fn local_files_of_a_set_are_staged_together() {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in set() {
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    let cache = tempfile::tempdir().unwrap();
    let stage = |name: &str| {
        let reference = ModelRef::File(dir.path().join(name));
        ModelProvisioner::new(cache.path()).stage(&reference, Some(&set_digest()), &|_| (), &Cancel::new())
    };
    assert_eq!(stage(&set()[0].0).unwrap().digest, set_digest());
    let middle = chain(&stage(&set()[1].0).unwrap_err());
    assert!(middle.contains("file 2 of 3") && middle.contains("-00001-of-00003.gguf"), "{middle}");
    std::fs::remove_file(dir.path().join(&set()[2].0)).unwrap();
    let missing = stage(&set()[0].0).unwrap_err();
    assert!(matches!(missing, StageError::Gguf { .. }) && chain(&missing).contains("00003-of-00003"));
}

/// MPROV-021, MPROV-009
#[test]
fn a_set_in_the_hub_cache_is_used_when_all_of_it_is_there() {
    let server = good_hub();
    let cache = tempfile::tempdir().unwrap();
    let repo = cache.path().join("models--org--repo");
    let snapshot = repo.join("snapshots").join(COMMIT).join("Q4");
    for dir in [&snapshot, &repo.join("blobs"), &repo.join("refs")] {
        std::fs::create_dir_all(dir).unwrap();
    }
    std::fs::write(repo.join("refs/main"), COMMIT).unwrap();
    let place = |(name, bytes): &(String, Vec<u8>)| {
        let blob = repo.join("blobs").join(sha256(bytes));
        std::fs::write(&blob, bytes).unwrap();
        let link: PathBuf = snapshot.join(name);
        std::os::unix::fs::symlink(blob, &link).unwrap();
        link
    };
    set()[..2].iter().for_each(|file| drop(place(file)));
    let partly = Machine::new(&server).with("HF_HUB_CACHE", cache.path().to_str().unwrap());
    assert!(partly.stage(REF).unwrap().path.starts_with(partly.dir.path()), "a part of it is of no use");
    place(&set()[2]);
    let gets = server.gets().len();
    let whole = Machine::new(&server).with("HF_HUB_CACHE", cache.path().to_str().unwrap());
    let record = whole.stage(REF).unwrap();
    assert!(record.path.starts_with(&snapshot) && record.digest == set_digest());
    assert_eq!(server.gets().len(), gets, "no byte was fetched");
    // And without any network.
    let lonely = tempfile::tempdir().unwrap();
    let var = |name: &str| (name == "HF_HUB_CACHE").then(|| cache.path().into());
    let network = Network::from_vars(var).with_patience(whole.patience);
    let offline = ModelProvisioner::new(lonely.path()).with_network(network).offline(true);
    let staged = offline.stage(&REF.parse().unwrap(), None, &|_| (), &Cancel::new()).unwrap();
    assert_eq!(staged.digest, set_digest());
    assert!(whole.patience.stall > Duration::ZERO);
}
