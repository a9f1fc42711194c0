//! Tasks that outlive a process: two dispatches over one journal, one after the other.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test helper fails by panicking"
)]

mod record;
mod restart;
mod stop;
#[path = "../support/mod.rs"]
mod support;

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use adapter_host::SoFar;
use dispatch::{AdmissionError, Owner, TaskFilter, TaskSpec};
use support::life::{Life, named, scratch};
use support::*;
use task_log::Position;
use task_log::journal::{Admission, Options, Space};
use wire::task::OnInterrupt;
use wire::{SessionId, TaskState};

/// ORCHD-JOURNAL-001, ORCHD-JOURNAL-003
#[tokio::test(flavor = "multi_thread")]
async fn waiting_tasks_wait_again_in_their_order_and_run_once() {
    let dir = scratch();
    let life = Life::begin(dir.path());
    for id in ["a", "b", "c"] {
        life.submit(named(id)).await;
    }
    life.submit(TaskSpec { priority: wire::task::Priority::Batch, ..named("later") }).await;
    life.killed().await;
    let life = Life::begin(dir.path());
    assert_eq!(life.taken.waiting, 4);
    let conflict = TaskSpec { fingerprint: [9; 32], ..named("b") };
    assert!(matches!(
        life.world.dispatch.submit_durably(conflict).await,
        Err(AdmissionError::Conflict { .. })
    ));
    assert!(!life.submit(named("b")).await.created_now, "the same body is the same task");
    let stranger = Owner::Data("two".into());
    assert!(life.world.dispatch.task(&id("a"), &stranger).is_none());
    let engine = Engine::new(Script::Speak(2, Duration::ZERO));
    life.world.up(0, 1, 1, &engine);
    for id in ["a", "b", "c", "later"] {
        assert_eq!(words(&life.task(id).unwrap()).await, "started:r0 0=t0 1=t1 end:stop", "{id}");
    }
    assert_eq!(engine.prompts(), ["a", "b", "c", "later"]);
    life.killed().await;
    let life = Life::begin(dir.path());
    assert_eq!((life.taken.waiting, life.taken.ended), (0, 4));
    life.world.up(0, 1, 1, &engine);
    life.submit(named("new")).await;
    words(&life.task("new").unwrap()).await;
    assert_eq!(engine.prompts().len(), 5, "nothing ran twice");
    life.killed().await;
}

async fn until(holds: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "not within 60 s");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// ORCHD-RESUME-012: the log of a task tells the next process what it has spent.
#[tokio::test(flavor = "multi_thread")]
async fn the_time_on_engines_is_counted_on_over_a_restart() {
    let dir = scratch();
    let life = Life::begin(dir.path());
    // As slow as it takes for every token to be noted.
    life.world.up(0, 1, 1, &Engine::new(Script::Speak(100, Duration::from_millis(1_050))));
    let spec = TaskSpec { on_interrupt: OnInterrupt::Resume, ..named("a") };
    until_entries(&life.submit(spec).await, 2).await;
    life.killed().await;
    let life = Life::begin(dir.path());
    let task = life.task("a").unwrap();
    assert_eq!(task.view().decode_time_ms, None, "until it ends");
    life.world.up(0, 1, 1, &Engine::new(Script::Speak(3, Duration::ZERO)));
    let entries = all(&task).await;
    let noted = entries.iter().find_map(|entry| match entry {
        task_log::Entry::Chunk { decode_ms, .. } => *decode_ms,
        _ => None,
    });
    assert!(noted.is_some_and(|ms| ms >= 1_050), "{noted:?}");
    let told = task.view().decode_time_ms;
    assert!(told >= noted, "{told:?} after {noted:?}");
    assert_eq!(life.world.dispatch.usage()[0].decode_time_ms, told.unwrap());
    life.killed().await;
}

/// ORCHD-JOURNAL-003
#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_goes_on_while_nobody_runs() {
    let dir = scratch();
    let life = Life::begin(dir.path());
    life.submit(TaskSpec { deadline: Some(Duration::from_millis(1)), ..named("short") }).await;
    life.killed().await;
    let life = Life::begin(dir.path());
    assert_eq!(words(&life.task("short").unwrap()).await, "error:DEADLINE_EXCEEDED:0");
    life.killed().await;
}

/// ORCHD-JOURNAL-003: a pool that only a handoff names is asked for by its name again once it is back.
#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_waiting_tasks_speak_of_is_what_its_handoff_says() {
    let dir = scratch();
    let named_by_handoff = || dispatch::PoolSpec {
        id: wire::PoolId::try_new("default").unwrap(),
        aliases: vec![],
        model_names: vec![],
        model_ref: String::new(),
        ctx: 4096,
        queue: wire::config::QueueConfig::default(),
        deterministic: false,
    };
    let id = named_by_handoff().id;
    let waits = |task: &str| TaskSpec { model: "default".to_owned(), ..named(task) };
    let life = Life::begin(dir.path());
    life.world.dispatch.ensure_pool(named_by_handoff());
    life.submit(waits("a")).await;
    life.killed().await;
    let life = Life::begin(dir.path());
    assert_eq!(life.taken.waiting, 1);
    assert!(!life.world.dispatch.model_names().contains(&"default".to_owned()), "nobody named it yet");
    life.world.dispatch.ensure_pool(named_by_handoff());
    assert!(life.world.dispatch.model_names().contains(&"default".to_owned()));
    assert_eq!(life.world.dispatch.pool_spec(&id).unwrap().ctx, 4096);
    life.submit(waits("b")).await;
    assert_eq!(life.world.dispatch.queue_depth(&id), 2, "in the same queue");
    // A pool that is known stays as it is.
    life.world.dispatch.ensure_pool(dispatch::PoolSpec { ctx: 1, ..named_by_handoff() });
    life.world.dispatch.ensure_pool(dispatch::PoolSpec { id: pool(), ..named_by_handoff() });
    let ctx = |id| life.world.dispatch.pool_spec(id).unwrap().ctx;
    assert_eq!((ctx(&id), ctx(&pool())), (4096, 2048));
    life.killed().await;
}

/// ORCHD-LIMIT-003: a task that waited through a restart is still one of its caller's.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_is_taken_back_counts_among_its_callers() {
    let dir = scratch();
    let begin = || {
        let callers = serde_json::from_str(r#"{"default":{"concurrent_tasks":1}}"#).unwrap();
        let limits = dispatch::Limits { callers, ..dispatch::Limits::default() };
        let world = World::with(8, wire::config::FullPolicy::Reject, limits);
        Life::of(world, dir.path(), Options::default())
    };
    let life = begin();
    life.submit(named("a")).await;
    life.killed().await;
    let life = begin();
    let second = async || life.world.dispatch.submit_durably(named("b")).await;
    assert!(matches!(second().await, Err(AdmissionError::RateLimited { .. })));
    life.task("a").unwrap().cancel();
    assert!(second().await.is_ok(), "its place is free when it has ended");
    life.killed().await;
}
