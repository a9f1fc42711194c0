//! A pool that loses its tasks tries so many of them again, and no more.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test helper fails by panicking"
)]

mod support;

use std::time::Duration;

use dispatch::{Limits, Task, TaskSpec};
use registry::{Event, Up};
use support::life::{Life, named, scratch};
use support::{Engine, Script, World, key, spec, until_entries, words};
use task_log::Entry;
use wire::config::FullPolicy;
use wire::event::StreamError;
use wire::task::OnInterrupt;

const MS: Duration = Duration::from_millis(1);

/// Without the pauses that a lost engine gets, which are tested elsewhere.
fn world() -> World {
    World::with(64, FullPolicy::Reject, Limits { suspect_for: Duration::ZERO, ..Limits::default() })
}

fn tried_again(world: &World) -> [Option<f64>; 2] {
    let of = |outcome| world.metric(&format!(r#"orchd_retries_total{{pool_id="p",outcome="{outcome}"}}"#));
    [of("tried_again"), of("refused")]
}

async fn error(task: &Task) -> StreamError {
    match support::all(task).await.last() {
        Some(Entry::Error(error)) => error.clone(),
        other => panic!("{other:?}"),
    }
}

/// ORCHD-GATE-004
#[tokio::test(start_paused = true)]
async fn a_pool_that_loses_every_task_tries_ten_again_and_says_why_no_more_until_a_minute_later() {
    let world = world();
    let engine = Engine::new(Script::BreakAfter(0));
    world.up(0, 1, 1, &engine);
    for n in 0..8 {
        let error = error(&world.submit(spec("x"))).await;
        assert_eq!((error.code, error.retriable, error.tokens_sent), (wire::ErrorCode::EngineLost, true, 0));
        // Five are tried twice more.
        let spent = n >= 5;
        assert_eq!(error.hint.is_some_and(|hint| hint.contains("used up its budget")), spent, "task {n}");
        assert_eq!(error.retry_after_ms.is_some(), spent, "task {n}");
    }
    assert_eq!(engine.asked().len(), 8 + 10);
    assert_eq!(tried_again(&world), [Some(10.0), Some(3.0)]);
    let wait = error(&world.submit(spec("x"))).await.retry_after_ms.unwrap();
    assert!((1..=61_000).contains(&wait), "{wait}");
    tokio::time::sleep(Duration::from_millis(wait)).await;
    assert_eq!(error(&world.submit(spec("x"))).await.hint, None, "it was tried as often as it may");
    assert_eq!(tried_again(&world), [Some(12.0), Some(4.0)]);
}

/// ORCHD-GATE-004
#[tokio::test(start_paused = true)]
async fn what_makes_engines_report_errors_leaves_half_of_the_budget_to_losses() {
    let world = world();
    let engine = Engine::new(Script::ReportAfter(0, "no".to_owned()));
    world.up(0, 1, 1, &engine);
    while tried_again(&world)[1] == Some(0.0) {
        assert_eq!(error(&world.submit(spec("x"))).await.code, wire::ErrorCode::Internal);
    }
    assert_eq!(tried_again(&world), [Some(5.0), Some(1.0)]);
    world.down(0, 1);
    world.up(0, 2, 1, &Engine::new(Script::BreakAfter(0)));
    while tried_again(&world)[1] == Some(1.0) {
        assert_eq!(error(&world.submit(spec("x"))).await.code, wire::ErrorCode::EngineLost);
    }
    assert_eq!(tried_again(&world), [Some(10.0), Some(2.0)]);
}

/// ORCHD-GATE-004
#[tokio::test(start_paused = true)]
async fn one_loss_of_everything_that_ran_costs_nobody_anything_and_many_tasks_allow_for_more() {
    let world = world();
    let engine = Engine::new(Script::HangAfter(0));
    world.up(0, 1, 24, &engine);
    let tasks: Vec<_> = (0..24).map(|_| world.submit(spec("x"))).collect();
    for task in &tasks {
        until_entries(task, 1).await;
    }
    world.down(0, 1);
    let engine = Engine::new(Script::HangAfter(0));
    world.up(0, 2, 24, &engine);
    tokio::time::timeout(Duration::from_secs(60), async {
        while engine.asked().len() < 24 {
            tokio::time::sleep(MS).await;
        }
    })
    .await
    .expect("all of them run again");
    // Nor when they have run for longer than the window: long prompts are read for minutes.
    tokio::time::sleep(Duration::from_secs(90)).await;
    world.down(0, 2);
    world.up(0, 3, 24, &Engine::new(Script::Speak(1, MS)));
    for task in &tasks {
        assert!(words(task).await.ends_with("0=t0 end:stop"));
    }
    assert_eq!(tried_again(&world), [Some(48.0), Some(0.0)]);

    // A fifth of those that started is more than ten and than twice the one that runs.
    let world = self::world();
    let engine = Engine::new(Script::BreakAfter(0));
    (0..75).for_each(|_| engine.then(Script::Speak(1, MS)));
    world.up(0, 1, 1, &engine);
    for _ in 0..75 {
        assert!(words(&world.submit(spec("x"))).await.ends_with("end:stop"));
    }
    while tried_again(&world)[1] == Some(0.0) {
        error(&world.submit(spec("x"))).await;
    }
    // The eighth that is lost makes it 83 that started, of which 16 are a fifth.
    assert_eq!(tried_again(&world), [Some(16.0), Some(1.0)]);
}

/// ORCHD-GATE-004
#[tokio::test(start_paused = true)]
async fn what_was_drained_and_what_goes_on_behind_its_tokens_does_not_count() {
    let world = world();
    world.up(0, 1, 1, &Engine::new(Script::HangAfter(0)));
    let drained = world.submit(spec("x"));
    until_entries(&drained, 1).await;
    world.registry.apply(Event::Up(Up { draining: true, ..Up::new(key(0), 1, 1) }));
    world.down(0, 1);
    let engine = Engine::new(Script::Speak(3, MS));
    engine.then(Script::Speak(1, MS));
    engine.then(Script::BreakAfter(2));
    world.up(1, 1, 1, &engine);
    assert_eq!(words(&drained).await, "started:r0 resumed:r1 0=t0 end:stop");
    let goes_on = world.submit(TaskSpec { on_interrupt: OnInterrupt::Resume, ..spec("x") });
    assert_eq!(words(&goes_on).await, "started:r1 0=t0 1=t1 resumed:r1 2=t2 end:stop");
    assert_eq!(tried_again(&world), [Some(0.0), Some(0.0)]);
}

/// ORCHD-GATE-004
#[tokio::test(flavor = "multi_thread")]
async fn what_a_restart_cut_off_does_not_count() {
    let dir = scratch();
    let life = Life::begin(dir.path());
    life.world.up(0, 1, 1, &Engine::new(Script::HangAfter(0)));
    until_entries(&life.submit(named("a")).await, 1).await;
    life.killed().await;
    let life = Life::begin(dir.path());
    life.world.up(0, 1, 1, &Engine::new(Script::Speak(1, Duration::ZERO)));
    assert_eq!(words(&life.task("a").unwrap()).await, "started:r0 resumed:r0 0=t0 end:stop");
    assert_eq!(tried_again(&life.world), [Some(0.0), Some(0.0)]);
    life.killed().await;
}
