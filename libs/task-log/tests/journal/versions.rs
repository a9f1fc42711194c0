//! What another version wrote.

use super::*;

/// ORCHD-JOURNAL-009: an event file that version 1 wrote, kept byte for byte.
#[test]
fn an_event_file_of_the_first_version_is_read() {
    let dir = scratch();
    let Opened { journal, next_seq, .. } = open(dir.path());
    admit(&journal, next_seq).unwrap();
    journal.close();
    fs::write(dir.path().join("events/00000009.events"), include_bytes!("../fixtures/version-1.events"))
        .unwrap();
    let opened = open(dir.path());
    let expected = [
        r#"{"started":{"queue_ms":5,"pool_id":"p","replica_id":"r0","engine_version":"b1","model":"m"}}"#,
        r#"{"chunk":{"chunk":{"text":"a","tokens":[1],"raw":{"content":  "x"}},"index":0}}"#,
        r#"{"resumed":{"from_index":1,"reason":"why","replica_id":"r1"}}"#,
        r#"{"end":{"tokens_in":1,"tokens_out":2,"decode_time_ms":3,"finish_reason":"stop","receipt":{"engine_version":"b1","model_digest":"d","seed":"42","tokens_sha256":"t"}}}"#,
    ];
    assert_eq!(next_seq, 1, "the fixture is of task number 1");
    let shown: Vec<serde_json::Value> =
        opened.tasks[0].entries.iter().map(|entry| serde_json::to_value(entry).unwrap()).collect();
    for (shown, expected) in shown.iter().zip(expected) {
        let expected: serde_json::Value = serde_json::from_str(expected).unwrap();
        assert!(holds(shown, &expected), "{shown} for {expected}");
    }
    assert_eq!(shown.len(), expected.len());
    opened.journal.close();
}

/// Whether everything in `old` is in `new`; what is newer may have more.
fn holds(new: &serde_json::Value, old: &serde_json::Value) -> bool {
    match old {
        serde_json::Value::Object(fields) => {
            fields.iter().all(|(name, old)| new.get(name).is_some_and(|new| holds(new, old)))
        }
        old => new == old,
    }
}

/// ORCHD-JOURNAL-009
#[test]
fn a_store_of_a_later_version_is_refused_and_left_as_it_is() {
    let dir = scratch();
    let opened = open(dir.path());
    admit(&opened.journal, opened.next_seq).unwrap();
    opened.journal.close();
    let set = |version: u64| {
        let store = redb::Database::open(dir.path().join("tasks.redb")).unwrap();
        let write = store.begin_write().unwrap();
        let meta: redb::TableDefinition<'_, &str, u64> = redb::TableDefinition::new("meta");
        write.open_table(meta).unwrap().insert("version", version).unwrap();
        write.commit().unwrap();
    };
    set(7);
    let error = Journal::open(dir.path(), Options::default()).unwrap_err();
    assert!(matches!(error, JournalError::Version { found: 7, .. }), "{error}");
    assert!(error.to_string().contains("later version (7"), "{error}");
    assert!(
        matches!(journal::repair(dir.path()), Err(JournalError::Version { .. })),
        "repair leaves it alone"
    );
    set(1);
    let opened = open(dir.path());
    assert_eq!(opened.tasks.len(), 1);
    opened.journal.close();
}
