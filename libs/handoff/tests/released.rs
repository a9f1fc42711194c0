//! Files as each released version of the schema wrote them. They are kept for ever and never edited: a
//! runtime directory outlives an upgrade, and so do files that people wrote by hand.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use handoff::HandoffDir;
use wire::handoff::HANDOFF_SCHEMA_VERSION;
use wire::{Handoff, HandoffState, SelfTest};

fn fixtures(version: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/v{version}"))
}

/// Reads one file through the directory, as orchestratord does.
fn read(file: &Path) -> Handoff {
    let tmp = tempfile::tempdir().unwrap();
    let dir = HandoffDir::open(tmp.path().join("engines")).unwrap();
    let copy = dir.path().join("one.json");
    fs::copy(file, &copy).unwrap();
    fs::set_permissions(&copy, Permissions::from_mode(0o600)).unwrap();
    let scan = dir.scan().unwrap();
    assert_eq!(scan.rejected, [], "{}", file.display());
    let mut claims = scan.claims.into_values();
    let handoff = claims.next().unwrap_or_else(|| panic!("{} claims nothing", file.display())).handoff;
    assert!(claims.next().is_none());
    handoff
}

/// HANDOFF-007
#[test]
fn every_file_of_every_released_version_is_read() {
    for version in 1..=HANDOFF_SCHEMA_VERSION {
        let files: Vec<PathBuf> =
            fs::read_dir(fixtures(version)).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(!files.is_empty(), "a released version without a file that is kept");
        for file in files {
            assert_eq!(read(&file).schema_version, version, "{}", file.display());
        }
    }
}

/// HANDOFF-004, HANDOFF-007
#[test]
fn what_the_first_version_said_still_means_the_same() {
    let of = |name: &str| read(&fixtures(1).join(name));
    let by_hand = of("by_hand.json");
    assert_eq!(
        (by_hand.pool_id.as_str(), by_hand.replica_id.as_str(), by_hand.slots_total),
        ("default", "r0", 1)
    );
    assert_eq!((by_hand.state, by_hand.determinism), (HandoffState::Ready, None));

    let founding = of("founding.json");
    assert_eq!((founding.engine_version.as_str(), founding.flags.len()), ("llamacpp-source:v0-cuda", 5));
    assert_eq!((founding.model.digest.as_str(), founding.generation), ("", 0));

    let ready = of("ready.json");
    assert_eq!((ready.replica_id.as_str(), ready.generation, ready.pid), ("r1", 7, Some(4711)));
    assert_eq!((ready.ctx, ready.api_key.map(|key| key.len())), (Some(2048), Some(32)));
    assert_eq!(ready.started_at.as_deref(), Some("2026-11-20T23:51:30Z"));

    assert_eq!(of("draining.json").state, HandoffState::Draining);
    assert_eq!(of("claims_determinism.json").determinism.unwrap().result, SelfTest::Passed);
}

/// HANDOFF-007
#[test]
fn every_file_that_is_kept_is_what_the_committed_schema_describes() {
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contracts/schemas/handoff.schema.json");
    let schema: serde_json::Value = serde_json::from_slice(&fs::read(schema).unwrap()).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    for version in 1..=HANDOFF_SCHEMA_VERSION {
        for entry in fs::read_dir(fixtures(version)).unwrap() {
            let path = entry.unwrap().path();
            let file = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            let problems: Vec<String> = validator.iter_errors(&file).map(|e| e.to_string()).collect();
            assert!(problems.is_empty(), "{}: {problems:?}", path.display());
        }
    }
}
