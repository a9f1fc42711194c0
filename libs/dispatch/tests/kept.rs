//! What is kept of tasks, for whom and how long.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test helper fails by panicking"
)]

mod support;

use std::sync::atomic::Ordering;
use std::time::Duration;

use dispatch::{Limits, Owner, TaskSpec};
use support::{Engine, Script, World, all, key, spec, until_entries, words};
use task_log::Entry;
use wire::ErrorCode;
use wire::config::FullPolicy;
use wire::task::{Placement, PlacementMode};

const MS: Duration = Duration::from_millis(1);

#[tokio::test(start_paused = true)]
async fn ended_tasks_are_kept_within_their_bounds() {
    let limits = Limits { kept_tasks: 3, kept_for: Duration::from_secs(100), ..Limits::default() };
    let world = World::with(8, FullPolicy::Reject, limits);
    world.up(0, 1, 1, &Engine::new(Script::Speak(1, MS)));
    let waiting = TaskSpec {
        placement: Some(Placement {
            mode: PlacementMode::Pin,
            pool_id: None,
            replica_id: Some(key(9).replica),
        }),
        ..spec("waits")
    };
    let waiting = world.submit(waiting);
    let mut ids = Vec::new();
    for n in 0..5 {
        let task = world.submit(spec(&n.to_string()));
        all(&task).await;
        ids.push(task.id().clone());
    }
    tokio::task::yield_now().await;
    let known = || ids.iter().filter(|id| world.dispatch.task(id, &Owner::Control).is_some()).count();
    assert_eq!(known(), 3);
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert_eq!(known(), 0);
    assert!(world.dispatch.task(waiting.id(), &Owner::Control).is_some(), "a living task is never let go");
}

/// STREAM-015
#[tokio::test(start_paused = true)]
async fn what_slow_readers_hold_of_tasks_that_are_not_kept_is_bounded() {
    let of_one = {
        let world = World::new();
        world.up(0, 1, 1, &Engine::new(Script::Speak(200, MS)));
        let task = world.submit(spec("0"));
        all(&task).await;
        task.log().bytes()
    };
    let limits = Limits { kept_tasks: 1, unread_bytes: of_one * 5 / 2, ..Limits::default() };
    let world = World::with(8, FullPolicy::Reject, limits);
    world.up(0, 1, 1, &Engine::new(Script::Speak(200, MS)));
    let mut slow = Vec::new();
    for n in 0..4 {
        let task = world.submit(spec(&n.to_string()));
        // The second reads to its end and is gone.
        let reader = (n != 1).then(|| task.log().follow(None));
        let log = task.log().held();
        all(&task).await;
        drop(task);
        slow.push((log, reader));
    }
    // Kept is the last one, and held besides are the first and the third.
    assert_eq!(slow.iter().map(|(log, _)| log.is_held()).collect::<Vec<_>>(), [true, false, true, true]);
    let missing = |reader: &Option<task_log::Follower>| reader.as_ref().unwrap().behind();
    assert!(slow.iter().all(|(_, reader)| reader.as_ref().is_none_or(|reader| reader.behind().is_none())));
    all(&world.submit(spec("one too many"))).await;
    let behind = missing(&slow[0].1).unwrap();
    assert_eq!((behind.entries, behind.token_events), (202, 0));
    for (_, reader) in slow.iter_mut().skip(2) {
        let mut read = 0;
        while reader.as_mut().unwrap().next().await.is_some() {
            read += 1;
        }
        assert_eq!((read, missing(reader)), (202, None), "others go on");
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_that_says_more_than_its_log_may_hold_fails_and_frees_its_slot() {
    let limits = Limits { task_log_bytes: 4_000, ..Limits::default() };
    let world = World::with(8, FullPolicy::Reject, limits);
    let engine = Engine::new(Script::Speak(1_000, MS));
    world.up(0, 1, 1, &engine);
    let task = world.submit(spec("x"));
    let last = all(&task).await.pop().unwrap();
    assert!(matches!(last, Entry::Error(error) if error.code == ErrorCode::TooLarge));
    assert_eq!((world.free(0), engine.running.load(Ordering::SeqCst)), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_late_reader_sees_all_of_it() {
    let world = World::new();
    world.up(0, 1, 1, &Engine::new(Script::Speak(2, MS)));
    let task = world.submit(spec("x"));
    until_entries(&task, 4).await;
    assert_eq!(words(&task).await, words(&task).await);
    assert_eq!(words(&task).await, "started:r0 0=t0 1=t1 end:stop");
}
