//! A runtime directory as a released version left it: kept for ever, and taken over by this one.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::house::{House, until};

/// What version 1 of the journal, the transcripts, the receipts, the usage and the registered engines
/// left behind at its end: a task that was done, and one that waited for an engine.
const VERSION_1: &[u8] = include_bytes!("../fixtures/runtime-v1.tar.gz");

/// ORCHD-JOURNAL-009, ORCHD-JOURNAL-003: what an earlier version kept is there after an upgrade.
#[tokio::test(flavor = "multi_thread")]
async fn the_runtime_directory_of_the_first_version_is_taken_over() {
    let house = House::new(1);
    unpack(VERSION_1, &house.dir.path().join("runtime"));
    // It is older than anything is kept by default.
    let file = house.dir.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    config["journal"] = json!({"keep_minutes": 100_000_000});
    config["artifacts"] = json!({"keep_minutes": 100_000_000});
    std::fs::write(&file, config.to_string()).unwrap();
    let daemon = house.start();

    let done = house.get(&daemon, "/v2/tasks/done-1").await;
    assert_eq!(
        (&done["state"], &done["tokens_out"], &done["tokens_in"]),
        (&json!("done"), &json!(8), &json!(4))
    );
    assert_eq!((&done["receipt"]["seed"], &done["receipt"]["slot_mode"]["slots"]), (&json!("7"), &json!(1)));
    let events = house.events(&daemon, "done-1", None).await;
    let names: Vec<&str> = events.iter().map(|(_, name, _)| name.as_str()).collect();
    assert_eq!((names.first(), names.len(), names.last()), (Some(&"started"), 10, Some(&"end")), "{names:?}");
    let text: String = events.iter().filter_map(|(_, _, data)| data["t"].as_str()).collect();
    let rest = house.events(&daemon, "done-1", Some("5")).await;
    assert_eq!(rest, events[6..], "a client goes on from where it was before the upgrade");

    let transcript = done["receipt"]["transcript_sha256"].as_str().unwrap();
    let transcript = house.get_bytes(&daemon, &format!("/v2/artifacts/{transcript}")).await;
    let transcript: wire::Transcript = serde_json::from_slice(&transcript).unwrap();
    assert_eq!((transcript.version, transcript.text), (1, text));

    until(async || house.get(&daemon, "/v2/tasks/waits-1").await["state"] == "done").await;
    assert_eq!(house.generations(), [("a second prompt".to_owned(), 1)].into());
    let usage = house.get(&daemon, "/v2/usage").await;
    assert_eq!(usage["since"], 1_795_875_784, "{usage}");
    assert!(usage["usage"][0]["tokens_out"].as_u64().unwrap() >= 8, "{usage}");
    let workers = house.get(&daemon, "/v2/workers").await;
    assert_eq!(workers["workers"][0]["replica_id"], "w1", "{workers}");
    daemon.terminate();
}

/// Unpacks it as its owner would have it: private, and with the times of now.
fn unpack(archive: &[u8], to: &Path) {
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(archive));
    archive.set_preserve_mtime(false);
    archive.set_preserve_permissions(true);
    archive.unpack(to).unwrap();
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o700)).unwrap();
}
