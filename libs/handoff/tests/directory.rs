//! The directory as its readers and writers meet it, hostile files included.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use handoff::{Change, Claims, HandoffDir, HandoffError, RejectReason};
use wire::{Handoff, HandoffState, PoolId, ReplicaId, ReplicaKey};

fn key(pool: &str) -> ReplicaKey {
    ReplicaKey { pool: PoolId::try_new(pool).unwrap(), replica: ReplicaId::nth(0) }
}

fn handoff(pool: &str, generation: u64) -> Handoff {
    let mut handoff: Handoff = serde_json::from_str(r#"{"url":"http://127.0.0.1:4000"}"#).unwrap();
    handoff.pool_id = PoolId::try_new(pool).unwrap();
    handoff.generation = generation;
    handoff.api_key = Some("secret".to_owned());
    handoff
}

fn put(dir: &HandoffDir, name: &str, text: &str) {
    let path = dir.path().join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
}

fn open() -> (tempfile::TempDir, HandoffDir) {
    let tmp = tempfile::tempdir().unwrap();
    let dir = HandoffDir::open(tmp.path().join("runtime/engines")).unwrap();
    (tmp, dir)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// HANDOFF-001
#[test]
fn a_published_handoff_is_private_and_read_back_whole() {
    let (_tmp, dir) = open();
    let published = handoff("a", 3);
    dir.publish(&published).unwrap();
    assert_eq!(mode(dir.path()), 0o700);
    assert_eq!(mode(&dir.path().join("a.r0.json")), 0o600);
    let scan = dir.scan().unwrap();
    assert_eq!(scan.rejected, []);
    assert_eq!(scan.claims[&key("a")].handoff, published);
    assert_eq!(scan.claims[&key("a")].url.to_string(), "http://127.0.0.1:4000");
}

#[test]
fn publishing_again_replaces_and_leaves_nothing_behind() {
    let (_tmp, dir) = open();
    for generation in 1..=3 {
        dir.publish(&handoff("a", generation)).unwrap();
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    assert_eq!(dir.scan().unwrap().claims[&key("a")].handoff.generation, 3);
}

#[test]
fn a_withdrawn_handoff_is_gone_and_withdrawing_twice_is_harmless() {
    let (_tmp, dir) = open();
    dir.publish(&handoff("a", 1)).unwrap();
    assert!(dir.withdraw(&key("a")).unwrap());
    assert!(!dir.withdraw(&key("a")).unwrap());
    assert!(dir.scan().unwrap().claims.is_empty());
}

#[test]
fn a_removed_directory_is_empty_until_the_next_publish_makes_it_again() {
    let (_tmp, dir) = open();
    dir.publish(&handoff("a", 1)).unwrap();
    fs::remove_dir_all(dir.path()).unwrap();
    assert!(dir.scan().unwrap().claims.is_empty());
    assert!(!dir.withdraw(&key("a")).unwrap());
    dir.publish(&handoff("a", 2)).unwrap();
    assert_eq!(dir.scan().unwrap().claims.len(), 1);
}

#[test]
fn a_directory_open_to_others_is_made_private() {
    let tmp = tempfile::tempdir().unwrap();
    fs::set_permissions(tmp.path(), Permissions::from_mode(0o777)).unwrap();
    HandoffDir::open(tmp.path()).unwrap();
    assert_eq!(mode(tmp.path()), 0o700);
}

#[test]
fn a_path_that_is_a_file_is_an_error_that_names_it() {
    let tmp = tempfile::tempdir().unwrap();
    let path = tmp.path().join("engines");
    fs::write(&path, "").unwrap();
    let error = HandoffDir::open(&path).unwrap_err();
    assert!(matches!(&error, HandoffError::Prepare { .. }), "{error:?}");
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
}

#[test]
fn a_handoff_every_reader_would_refuse_is_not_published() {
    let (_tmp, dir) = open();
    let mut bad = handoff("a", 1);
    bad.url = "http://10.0.0.1:80".to_owned();
    assert!(matches!(dir.publish(&bad), Err(HandoffError::Invalid { .. })));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_hand_written_llamacpp_json_binds() {
    let (_tmp, dir) = open();
    put(&dir, "llamacpp.json", r#"{"url":"http://127.0.0.1:8080"}"#);
    put(&dir, "notes.txt", "not ours");
    put(&dir, ".handoff-x.tmp", "half");
    put(&dir, ".hidden.json", "half");
    let scan = dir.scan().unwrap();
    assert_eq!(scan.claims[&key("default")].file, "llamacpp.json");
    assert_eq!(scan.rejected, []);
}

/// HANDOFF-002
#[test]
fn hostile_files_are_rejected_each_with_its_reason() {
    let (tmp, dir) = open();
    let good = r#"{"url":"http://127.0.0.1:1"}"#;
    let elsewhere = tmp.path().join("elsewhere");
    fs::write(&elsewhere, good).unwrap();
    symlink(&elsewhere, dir.path().join("a-link.json")).unwrap();
    symlink("/nowhere", dir.path().join("b-dangling.json")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        dir.path().join("c-fifo.json"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    let _socket = UnixListener::bind(dir.path().join("d-socket.json")).unwrap();
    fs::create_dir(dir.path().join("e-dir.json")).unwrap();
    for (name, mode) in [("f-group.json", 0o620), ("g-world.json", 0o602)] {
        put(&dir, name, good);
        fs::set_permissions(dir.path().join(name), Permissions::from_mode(mode)).unwrap();
    }
    put(&dir, "h-huge.json", &format!("{good}{}", " ".repeat(64 * 1024)));
    put(&dir, "i-half.json", &good[..good.len() - 1]);
    put(&dir, "j-new.json", r#"{"schema_version":99}"#);
    put(&dir, "k-away.json", r#"{"url":"http://10.0.0.1:80"}"#);
    put(&dir, "l-empty.json", "");

    let scan = dir.scan().unwrap();
    assert!(scan.claims.is_empty(), "{:?}", scan.claims);
    let mut reasons = scan.rejected.iter().map(|r| (r.file.as_str(), &r.reason));
    let mut next = |file: &str| {
        let (found, reason) = reasons.next().unwrap();
        assert_eq!(found, file);
        reason.clone()
    };
    assert_eq!(next("a-link.json"), RejectReason::Symlink);
    assert_eq!(next("b-dangling.json"), RejectReason::Symlink);
    assert_eq!(next("c-fifo.json"), RejectReason::NotRegular);
    assert_eq!(next("d-socket.json"), RejectReason::NotRegular);
    assert_eq!(next("e-dir.json"), RejectReason::NotRegular);
    assert_eq!(next("f-group.json"), RejectReason::WritableByOthers { mode: 0o620 });
    assert_eq!(next("g-world.json"), RejectReason::WritableByOthers { mode: 0o602 });
    assert_eq!(next("h-huge.json"), RejectReason::TooLarge);
    assert!(matches!(next("i-half.json"), RejectReason::Malformed(_)));
    assert_eq!(next("j-new.json"), RejectReason::TooNew { found: 99 });
    assert!(matches!(next("k-away.json"), RejectReason::Url(_)));
    assert!(matches!(next("l-empty.json"), RejectReason::Malformed(_)));
}

/// HANDOFF-002
#[test]
fn a_pipe_in_the_place_of_the_directory_is_an_error_and_is_not_waited_for() {
    let (tmp, dir) = open();
    fs::remove_dir(dir.path()).unwrap();
    let (file_type, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR);
    rustix::fs::mknodat(rustix::fs::CWD, dir.path(), file_type, mode, 0).unwrap();
    let (send, scanned) = std::sync::mpsc::channel();
    // Opened as anything but a directory it would wait for somebody who writes.
    std::thread::spawn(move || send.send(dir.scan().map_err(|error| error.kind())));
    let scanned = scanned.recv_timeout(std::time::Duration::from_secs(30)).expect("the scan hangs");
    assert_eq!(scanned.unwrap_err(), std::io::ErrorKind::NotADirectory);
    drop(tmp);
}

/// HANDOFF-002
#[test]
fn a_foreign_owned_file_is_rejected() {
    // Only root can make one; anyone else meets a file of root's.
    let (_tmp, dir) = open();
    if rustix::process::geteuid().is_root() {
        put(&dir, "x.json", r#"{"url":"http://127.0.0.1:1"}"#);
        std::os::unix::fs::chown(dir.path().join("x.json"), Some(12345), None).unwrap();
        let scan = dir.scan().unwrap();
        assert_eq!(scan.rejected[0].reason, RejectReason::ForeignOwner { owner: 12345, us: 0 });
    } else {
        let error = HandoffDir::open("/etc").unwrap_err();
        assert!(matches!(error, HandoffError::ForeignDirectory { owner: 0, .. }), "{error:?}");
    }
}

#[test]
fn a_claim_appears_changes_and_vanishes_once_each() {
    let (_tmp, dir) = open();
    let mut claims = Claims::default();
    let mut step = || claims.update(dir.scan().unwrap());
    assert_eq!(step(), []);

    dir.publish(&handoff("a", 1)).unwrap();
    assert!(matches!(&step()[..], [Change::Appeared(claim)] if claim.handoff.generation == 1));
    assert_eq!(step(), []);

    let mut draining = handoff("a", 1);
    draining.state = HandoffState::Draining;
    dir.publish(&draining).unwrap();
    assert!(matches!(&step()[..], [Change::Changed(claim)] if claim.handoff.state == HandoffState::Draining));
    assert_eq!(step(), []);

    dir.withdraw(&key("a")).unwrap();
    assert_eq!(step(), [Change::Vanished(key("a"))]);
    assert_eq!(step(), []);
}

/// HANDOFF-005
#[test]
fn a_file_that_turns_corrupt_keeps_its_claim_and_is_reported_once() {
    let (_tmp, dir) = open();
    let mut claims = Claims::default();
    dir.publish(&handoff("a", 1)).unwrap();
    claims.update(dir.scan().unwrap());

    put(&dir, "a.r0.json", "{\"url\":");
    let changes = claims.update(dir.scan().unwrap());
    assert!(matches!(&changes[..], [Change::Rejected(r)] if r.file == "a.r0.json"), "{changes:?}");
    assert_eq!(claims.update(dir.scan().unwrap()), []);
    assert!(claims.standing().contains_key(&key("a")));

    put(&dir, "a.r0.json", r#"{"url":"http://10.0.0.1:80"}"#);
    let changes = claims.update(dir.scan().unwrap());
    assert!(matches!(&changes[..], [Change::Rejected(_)]), "another reason is news: {changes:?}");

    dir.publish(&handoff("a", 2)).unwrap();
    let changes = claims.update(dir.scan().unwrap());
    assert!(matches!(&changes[..], [Change::Changed(c)] if c.handoff.generation == 2), "{changes:?}");

    put(&dir, "a.r0.json", "{");
    claims.update(dir.scan().unwrap());
    fs::remove_file(dir.path().join("a.r0.json")).unwrap();
    assert_eq!(claims.update(dir.scan().unwrap()), [Change::Vanished(key("a"))]);
}

#[test]
fn a_file_that_now_claims_another_replica_and_loses_gives_its_first_one_up() {
    let (_tmp, dir) = open();
    let mut claims = Claims::default();
    put(&dir, "x.json", r#"{"url":"http://127.0.0.1:1","pool_id":"a"}"#);
    dir.publish(&handoff("b", 5)).unwrap();
    claims.update(dir.scan().unwrap());
    put(&dir, "x.json", r#"{"url":"http://127.0.0.1:1","pool_id":"b"}"#);
    let changes = claims.update(dir.scan().unwrap());
    assert!(changes.contains(&Change::Vanished(key("a"))), "{changes:?}");
    assert!(!claims.standing().contains_key(&key("a")));
}

#[test]
fn ten_thousand_files_are_all_seen() {
    let (_tmp, dir) = open();
    for n in 0..10_000 {
        let text = serde_json::to_string(&handoff(&format!("p{n}"), 1)).unwrap();
        put(&dir, &format!("p{n}.r0.json"), &text);
    }
    let begun = std::time::Instant::now();
    assert_eq!(dir.scan().unwrap().claims.len(), 10_000);
    // The bar is 0.5 s in release on an idle machine; shared and unoptimised gets room.
    let limit = if cfg!(debug_assertions) { 5.0 } else { 0.5 };
    let took = begun.elapsed().as_secs_f64();
    assert!(took < limit, "the scan took {took:.3} s");
}

/// HANDOFF-001
#[test]
fn a_reader_never_sees_half_a_handoff() {
    let (_tmp, dir) = open();
    dir.publish(&handoff("a", 0)).unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| (1..200).for_each(|n| dir.publish(&handoff("a", n)).unwrap()));
        let mut last = 0;
        while !writer.is_finished() {
            let scan = dir.scan().unwrap();
            assert_eq!(scan.rejected, []);
            let seen = scan.claims[&key("a")].handoff.generation;
            assert!(seen >= last, "{seen} after {last}");
            last = seen;
        }
    });
}
