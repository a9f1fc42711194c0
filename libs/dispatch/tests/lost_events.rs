//! Tasks of which an event was lost in the journal, in the middle of what they had said: what their
//! streams tell after a restart.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test helper fails by panicking"
)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use adapter_host::{EngineRequest, SoFar};
use dispatch::TaskSpec;
use support::life::{Life, named, scratch};
use support::*;
use task_log::Entry;
use task_log::journal::{self, Options};
use wire::TaskState;
use wire::event::StreamError;
use wire::task::OnInterrupt;

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// The journal of a task that an engine of this script had, as a kill leaves it after so many events, but for
/// the event at `place`.
async fn without(place: u64, spec: TaskSpec, script: Script, events: u64) -> tempfile::TempDir {
    let dir = scratch();
    // The store hears of no end: it would be told with the events' next sync.
    let options = Options { sync_every: Duration::from_secs(3600), ..Options::default() };
    let life = Life::with(dir.path(), options);
    life.world.up(0, 1, 1, &Engine::new(script));
    until_entries(&life.submit(spec).await, events).await;
    let copy = scratch();
    for file in files(dir.path()) {
        let to = copy.path().join(file.strip_prefix(dir.path()).unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        let mut bytes = fs::read(&file).unwrap();
        if file.extension().is_some_and(|kind| kind == "events") {
            let mut from = 16;
            while let Some(length) = bytes.get(from + 4..from + 8) {
                let to = from + 12 + u32::from_le_bytes(length.try_into().unwrap()) as usize;
                let at = u64::from_le_bytes(bytes[from + 21..from + 29].try_into().unwrap());
                if bytes[from + 12] == 1 && at == place {
                    bytes.drain(from..to);
                } else {
                    from = to;
                }
            }
        }
        fs::write(to, bytes).unwrap();
    }
    life.killed().await;
    copy
}

fn resuming() -> TaskSpec {
    TaskSpec { on_interrupt: OnInterrupt::Resume, ..named("a") }
}

fn error(life: &Life) -> StreamError {
    match life.task("a").unwrap().log().terminal().as_deref() {
        Some(Entry::Error(error)) => error.clone(),
        other => panic!("{other:?}"),
    }
}

fn prompt_bytes(dir: &Path) -> u64 {
    files(&dir.join("prompts")).iter().map(|file| fs::metadata(file).unwrap().len()).sum()
}

/// ORCHD-JOURNAL-014: its end survived, and what is in front of that did not.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_had_ended_is_told_up_to_where_its_events_break_off_and_that_they_were_lost() {
    for (place, told) in [
        (0, "error:INTERRUPTED:0"),
        (1, "started:r0 error:INTERRUPTED:0"),
        (2, "started:r0 0=t0 error:INTERRUPTED:1"),
        (3, "started:r0 0=t0 1=t1 error:INTERRUPTED:2"),
    ] {
        let dir = without(place, resuming(), Script::Speak(3, Duration::ZERO), 5).await;
        let said = journal::repair(dir.path()).unwrap();
        assert!(said.len() == 1 && said[0].contains("INTERRUPTED"), "{said:?}");
        let life = Life::begin(dir.path());
        assert_eq!((life.taken.waiting, life.taken.interrupted, life.taken.ended), (0, 1, 0));
        let engine = Engine::new(Script::Speak(3, Duration::ZERO));
        life.world.up(0, 1, 1, &engine);
        assert_eq!(words(&life.task("a").unwrap()).await, told);
        let error = error(&life);
        assert!(
            error.retriable && error.message == journal::lost_behind(place.saturating_sub(1)),
            "{error:?}"
        );
        assert_eq!(life.task("a").unwrap().view().state, TaskState::Interrupted);
        life.killed().await;
        assert_eq!(prompt_bytes(dir.path()), 0);
        let life = Life::begin(dir.path());
        assert_eq!((life.taken.waiting, life.taken.ended), (0, 1));
        assert_eq!(words(&life.task("a").unwrap()).await, told, "what stood behind does not come back");
        assert!(engine.asked().is_empty(), "it had ended");
        life.killed().await;
    }
}

/// ORCHD-JOURNAL-014: it was running, and may go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_was_running_goes_on_in_front_of_what_was_lost_and_says_so() {
    for (place, told, so_far) in [
        (0, "started:r0 0=t0 1=t1 2=t2 3=t3 end:stop", SoFar::Nothing),
        (1, "started:r0 resumed:r0 0=t0 1=t1 2=t2 3=t3 end:stop", SoFar::Nothing),
        (2, "started:r0 0=t0 resumed:r0 1=t1 2=t2 3=t3 end:stop", SoFar::Ids(vec![0])),
    ] {
        let dir = without(place, resuming(), Script::HangAfter(3), 4).await;
        let life = Life::begin(dir.path());
        assert_eq!((life.taken.waiting, life.taken.interrupted), (1, 0));
        let engine = Engine::new(Script::Speak(4, Duration::ZERO));
        life.world.up(0, 1, 1, &engine);
        let task = life.task("a").unwrap();
        assert_eq!(words(&task).await, told);
        assert_eq!(engine.asked()[0].so_far, so_far);
        let resumed = all(&task).await.into_iter().find_map(|entry| match entry {
            Entry::Resumed(resumed) => Some(resumed.reason),
            _ => None,
        });
        assert_eq!(resumed.is_some(), place > 0);
        assert!(resumed.is_none_or(|why| why.contains("events of the task were lost in its journal")));
        life.killed().await;
    }
}

/// ORCHD-JOURNAL-014, ORCHD-JOURNAL-003: it was running and may not go on, nor begin anew: it may have spoken
/// although nothing of that is left.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_may_not_go_on_ends_where_its_events_break_off() {
    let mut bound = resuming();
    let EngineRequest::Completion(completion) = &mut bound.request else { panic!("a completion") };
    completion.sampling.grammar = Some("root ::= any".to_owned());
    for (spec, hint) in [(named("a"), false), (bound, true)] {
        for (place, told) in [
            (0, "error:INTERRUPTED:0"),
            (1, "started:r0 error:INTERRUPTED:0"),
            (2, "started:r0 0=t0 error:INTERRUPTED:1"),
        ] {
            let dir = without(place, spec.clone(), Script::HangAfter(3), 4).await;
            let life = Life::begin(dir.path());
            assert_eq!((life.taken.waiting, life.taken.interrupted), (0, 1));
            let engine = Engine::new(Script::Speak(4, Duration::ZERO));
            life.world.up(0, 1, 1, &engine);
            assert_eq!(words(&life.task("a").unwrap()).await, told);
            let error = error(&life);
            assert_eq!(error.message, journal::lost_behind(place.saturating_sub(1)));
            assert_eq!(error.hint.is_some_and(|hint| hint.contains("grammar")), hint);
            assert!(engine.asked().is_empty());
            life.killed().await;
        }
    }
}
