//! The models; see `../loom.rs`. A writer that is dropped ends its log with an error. Up to three switches to
//! another thread are tried where none was needed (`LOOM_MAX_PREEMPTIONS` says another number).

use loom::future::block_on;
use loom::thread;
use task_log::{Entry, TaskLog};
use wire::EngineChunk;

/// More switches than these take minutes.
const SWITCHES: usize = 3;

fn model(of: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(SWITCHES);
    builder.check(of);
}

fn chunk() -> EngineChunk {
    serde_json::from_str(r#"{"text":"a","tokens":[1],"raw":{}}"#).unwrap()
}

/// What a reader sees, to the end.
fn read(log: &TaskLog) -> Vec<String> {
    let mut follower = log.follow(None);
    block_on(async {
        let mut seen = Vec::new();
        while let Some((position, entry)) = follower.next().await {
            seen.push(format!("{position}:{}", matches!(*entry, Entry::Error(_))));
        }
        seen
    })
}

#[test]
fn a_reader_sees_every_entry_once_and_the_end_and_never_sleeps_for_ever() {
    model(|| {
        let (log, mut writer) = TaskLog::new(1 << 20);
        let write = thread::spawn(move || {
            writer.chunk(chunk()).unwrap();
            drop(writer);
        });
        assert_eq!(read(&log), ["0:false", "1:true"]);
        write.join().unwrap();
    });
}

#[test]
fn two_readers_see_the_same() {
    model(|| {
        let (log, writer) = TaskLog::new(1 << 20);
        let other = log.clone();
        let reader = thread::spawn(move || read(&other));
        let write = thread::spawn(move || drop(writer));
        assert_eq!(read(&log), ["0:true"]);
        assert_eq!(reader.join().unwrap(), ["0:true"]);
        write.join().unwrap();
    });
}

#[test]
fn whoever_waits_for_the_end_wakes_when_it_can_be_read() {
    model(|| {
        let (log, mut writer) = TaskLog::new(1 << 20);
        let write = thread::spawn(move || {
            writer.chunk(chunk()).unwrap();
            drop(writer);
        });
        block_on(log.settled());
        assert_eq!(log.entries_len(), 2);
        write.join().unwrap();
    });
}
