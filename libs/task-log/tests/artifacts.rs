//! What is promised of artifacts: named by their digest, each owner's own, bounded, whole or not there.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use task_log::artifacts::{ArtifactError, ArtifactLimits, Artifacts};
use task_log::journal::Space;

/// printf abc | sha256sum
const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

fn limits() -> ArtifactLimits {
    ArtifactLimits { bytes: 100, count: 3, age: Duration::from_secs(3600) }
}

fn open(dir: &Path) -> Artifacts {
    Artifacts::open(dir, limits(), Space::default()).unwrap()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let shelves = std::fs::read_dir(dir).unwrap().map(|shelf| shelf.unwrap().path());
    shelves.flat_map(|shelf| std::fs::read_dir(shelf).unwrap().map(|file| file.unwrap().path())).collect()
}

/// ORCHD-ARTIFACT-001, ORCHD-ARTIFACT-002
#[test]
fn bytes_are_named_by_their_digest_and_are_their_owners_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(open(dir.path()).put("a/../b", b"abc").unwrap(), ABC);
    let artifacts = open(dir.path());
    assert_eq!(artifacts.get(Some("a/../b"), ABC).unwrap().as_deref(), Some(&b"abc"[..]));
    assert_eq!(artifacts.get(None, ABC).unwrap().as_deref(), Some(&b"abc"[..]));
    assert_eq!(artifacts.get(Some("c"), ABC).unwrap(), None);
    for name in ["", "..", "../../etc/passwd", &ABC.to_uppercase(), &ABC[1..]] {
        assert_eq!(artifacts.get(None, name).unwrap(), None, "{name}");
    }
    let all = files(dir.path());
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(all[0].parent().unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o700);
}

/// ORCHD-ARTIFACT-003
#[test]
fn each_owners_are_bounded_by_number_bytes_and_age_and_the_oldest_go() {
    let dir = tempfile::tempdir().unwrap();
    let artifacts = open(dir.path());
    let put = |bytes: &[u8]| artifacts.put("a", bytes).unwrap();
    let (one, two) = (put(b"1"), put(b"2"));
    artifacts.put("b", b"1").unwrap();
    put(b"3");
    put(b"1");
    let four = put(b"4");
    let there = |name: &str| artifacts.get(Some("a"), name).unwrap().is_some();
    assert!(there(&one) && !there(&two) && there(&four), "what was stored again is young");
    let large = put(&[b'x'; 99]);
    assert!(there(&large) && !there(&one) && there(&four), "99 and 1 bytes and no more");
    let error = artifacts.put("a", &[b'x'; 101]).unwrap_err();
    assert!(matches!(error, ArtifactError::TooLarge { bytes: 101, limit: 100 }), "{error}");
    assert!(artifacts.get(Some("b"), &one).unwrap().is_some(), "another's are none of it");

    let long_ago = SystemTime::now() - Duration::from_secs(3601);
    for file in files(dir.path()) {
        std::fs::File::open(file).unwrap().set_modified(long_ago).unwrap();
    }
    assert_eq!(open(dir.path()).get(None, &one).unwrap(), None);
    assert_eq!(files(dir.path()), Vec::<PathBuf>::new());
}

/// ORCHD-ARTIFACT-001
#[test]
fn a_file_that_is_not_what_was_stored_is_not_served() {
    let dir = tempfile::tempdir().unwrap();
    let artifacts = open(dir.path());
    artifacts.put("a", b"abc").unwrap();
    std::fs::write(&files(dir.path())[0], b"abd").unwrap();
    assert!(matches!(artifacts.get(Some("a"), ABC), Err(ArtifactError::Damaged { .. })));
    assert_eq!(artifacts.get(Some("a"), ABC).unwrap(), None);
    artifacts.put("a", b"abc").unwrap();
    assert_eq!(artifacts.get(Some("a"), ABC).unwrap().as_deref(), Some(&b"abc"[..]), "stored again");
}

/// ORCHD-ARTIFACT-004
#[test]
fn a_full_disk_refuses_and_leaves_nothing_and_what_is_there_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let full = Arc::new(AtomicBool::new(false));
    let artifacts = Artifacts::open(dir.path(), limits(), Space::full_while(Arc::clone(&full))).unwrap();
    artifacts.put("a", b"abc").unwrap();
    full.store(true, Ordering::SeqCst);
    let error = artifacts.put("a", b"new").unwrap_err();
    assert!(
        matches!(&error, ArtifactError::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull)
    );
    assert_eq!(files(dir.path()).len(), 1);
    assert!(artifacts.get(Some("a"), ABC).unwrap().is_some());
    full.store(false, Ordering::SeqCst);
    artifacts.put("a", b"new").unwrap();
}

/// ORCHD-ARTIFACT-001: what a kill leaves in the middle of a write.
#[test]
fn what_was_half_written_goes_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).put("a", b"abc").unwrap();
    let half = files(dir.path())[0].with_file_name("7.unfinished");
    std::fs::write(&half, b"ab").unwrap();
    let artifacts = open(dir.path());
    assert!(!half.exists());
    assert!(artifacts.get(Some("a"), ABC).unwrap().is_some());
}
