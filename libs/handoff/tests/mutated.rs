//! Handoff files that nobody meant to write: see `mutate`.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use handoff::{Claims, HandoffDir};

/// HANDOFF-004, ORCHD-AUTOBIND-002
#[test]
fn no_file_breaks_the_scan_and_what_is_believed_is_an_engine_on_this_machine() {
    let corpus = mutate::corpus(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")).unwrap();
    let tmp = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let dir = HandoffDir::open(tmp.path().join("engines")).unwrap();
    let good = serde_json::from_str(r#"{"url":"http://127.0.0.1:4000","pool_id":"stays"}"#).unwrap();
    dir.publish(&good).unwrap();
    let path = dir.path().join("mutated.json");
    fs::write(&path, "").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    let mut claims = Claims::default();
    let mut believed = 0_u64;
    let count = mutate::rounds("handoff", &corpus, 10_000, |input, _| {
        fs::write(&path, input).unwrap();
        let scan = dir.scan().unwrap();
        let of_it = scan.claims.values().filter(|claim| claim.file == "mutated.json").count();
        let refused = scan.rejected.iter().filter(|rejected| rejected.file == "mutated.json").count();
        // It may claim the place of the good one; then one of the two is rejected.
        assert!(of_it + refused == 1, "believed or refused with a reason: {scan:?}");
        for claim in scan.claims.values() {
            assert!(claim.url.addr().ip().is_loopback() && claim.url.addr().port() != 0, "{claim:?}");
            // What is believed can be published and is itself again.
            let again = serde_json::to_string(&claim.handoff).unwrap();
            assert_eq!(serde_json::from_str::<wire::Handoff>(&again).unwrap(), claim.handoff);
        }
        believed += of_it as u64;
        claims.update(scan);
        assert!(!claims.standing().is_empty(), "what stands is kept");
    });
    assert!(count >= 1_000 && believed > 10, "{believed} of {count}");
}
