//! Everything that ends a task before its engine does, and engines that are lost.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test helper fails by panicking"
)]

mod support;

use std::sync::atomic::Ordering;
use std::time::Duration;

use dispatch::{AdmissionError, Detach, Limits, TaskSpec};
use support::{Engine, Script, World, all, pool, spec, until_entries, words};
use tokio::time::Instant;
use wire::config::FullPolicy;
use wire::{ErrorCode, TaskState};

const MS: Duration = Duration::from_millis(1);
const SEC: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_cancelled_waiting_task_leaves_at_once() {
    let world = World::with(1, FullPolicy::Reject, Limits::default());
    let task = world.submit(spec("x"));
    task.cancel();
    assert_eq!(world.dispatch.queue_depth(&pool()), 0);
    world.submit(spec("its place is free"));
    task.cancel();
    assert_eq!(words(&task).await, "end:cancelled");
    assert_eq!(task.view().state, TaskState::Cancelled);
    let canceled = r#"orchd_tasks_canceled_total{pool_id="p",reason="requested"}"#;
    assert_eq!(world.metric(canceled), Some(1.0));
}

#[tokio::test(start_paused = true)]
async fn no_token_follows_a_cancel_and_the_slot_is_free() {
    let world = World::new();
    let engine = Engine::new(Script::Speak(1_000, MS));
    world.up(0, 1, 1, &engine);
    let task = world.submit(spec("x"));
    until_entries(&task, 10).await;
    task.cancel();
    let entries = task.log().entries_len();
    assert!(task.log().terminal().is_some());
    world.until_free(0, 1).await;
    assert_eq!(engine.running.load(Ordering::SeqCst), 0, "the stream is gone");
    tokio::time::sleep(SEC).await;
    assert_eq!(task.log().entries_len(), entries);
    assert_eq!(task.view().tokens_out, Some(entries - 2));
    assert_eq!(task.view().tokens_in, None, "the engine has not said it, and 0 is not true");
    let Some(task_log::Entry::End(end)) = task.log().terminal().as_deref().cloned() else { panic!("no end") };
    assert!(!serde_json::to_string(&end).unwrap().contains("tokens_in"), "ORCHD-USAGE-001");
    let out = r#"orchd_tokens_out_total{pool_id="p",priority="interactive"}"#;
    assert_eq!(world.metric(out), task.view().tokens_out.map(|n| n as f64));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_token_follows_a_cancel_on_many_threads() {
    let world = World::new();
    world.up(0, 1, 1, &Engine::new(Script::Speak(u32::MAX, Duration::ZERO)));
    for _ in 0..200 {
        let task = world.submit(spec("x"));
        until_entries(&task, 3).await;
        task.cancel();
        let entries = task.log().entries_len();
        assert!(words(&task).await.ends_with("end:cancelled"));
        assert_eq!(task.log().entries_len(), entries);
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_of_zero_is_refused_and_one_in_the_queue_is_kept() {
    let world = World::new();
    let zero = TaskSpec { deadline: Some(Duration::ZERO), ..spec("x") };
    assert!(matches!(world.dispatch.submit(zero), Err(AdmissionError::DeadlineUnmet { .. })));
    let start = Instant::now();
    let task = world.submit(TaskSpec { deadline: Some(5 * SEC), ..spec("x") });
    assert_eq!(words(&task).await, "error:DEADLINE_EXCEEDED:0");
    assert!(start.elapsed() < 5 * SEC + 10 * MS, "{:?}", start.elapsed());
    assert_eq!(task.view().state, TaskState::Failed);
    assert_eq!(world.dispatch.queue_depth(&pool()), 0);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_cuts_a_silent_engine_and_a_speaking_one() {
    for script in [Script::HangAfter(2), Script::Speak(1_000, 30 * MS)] {
        let world = World::new();
        world.up(0, 1, 1, &Engine::new(script));
        let start = Instant::now();
        let task = world.submit(TaskSpec { deadline: Some(SEC), ..spec("x") });
        assert!(words(&task).await.contains("error:DEADLINE_EXCEEDED"));
        assert!(start.elapsed() < SEC + 10 * MS);
        assert_eq!(world.free(0), 1);
    }
}

/// STREAM-008
#[tokio::test(start_paused = true)]
async fn a_task_nobody_reads_is_cancelled_after_its_grace_from_started() {
    let world = World::new();
    let engine = Engine::new(Script::Speak(u32::MAX, SEC));
    let task = world.submit(TaskSpec { detach: Detach::After(30 * SEC), ..spec("x") });
    tokio::time::sleep(100 * SEC).await;
    assert_eq!(task.view().state, TaskState::Queued, "waiting in the queue is no fault of the reader");
    world.up(0, 1, 1, &engine);
    let started = Instant::now();
    world.until_free(0, 0).await;
    world.until_free(0, 1).await;
    assert_eq!(task.view().state, TaskState::Cancelled);
    assert!((29..=31).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
    assert_eq!(world.metric(r#"orchd_tasks_canceled_total{pool_id="p",reason="unread"}"#), Some(1.0));
}

#[tokio::test(start_paused = true)]
async fn a_reader_within_the_grace_keeps_a_task_alive() {
    let world = World::new();
    world.up(0, 1, 1, &Engine::new(Script::Speak(u32::MAX, SEC)));
    let task = world.submit(TaskSpec { detach: Detach::After(30 * SEC), ..spec("x") });
    for _ in 0..5 {
        tokio::time::sleep(20 * SEC).await;
        drop(task.log().follow(None));
    }
    let reader = task.log().follow(None);
    tokio::time::sleep(100 * SEC).await;
    assert_eq!(task.view().state, TaskState::Running);
    drop(reader);
    tokio::time::sleep(31 * SEC).await;
    assert_eq!(task.view().state, TaskState::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_its_connection_goes_with_it_queued_or_running() {
    let world = World::new();
    world.up(0, 1, 1, &Engine::new(Script::HangAfter(1)));
    let at_once = || world.submit(TaskSpec { detach: Detach::AtOnce, ..spec("x") });
    let (running, queued) = (at_once(), at_once());
    let readers = [running.log().follow(None), queued.log().follow(None)];
    world.until_free(0, 0).await;
    tokio::time::sleep(100 * SEC).await;
    assert_eq!((running.view().state, queued.view().state), (TaskState::Running, TaskState::Queued));
    let start = Instant::now();
    drop(readers);
    world.until_free(0, 1).await;
    assert!(start.elapsed() < 10 * MS);
    assert_eq!((running.view().state, queued.view().state), (TaskState::Cancelled, TaskState::Cancelled));
    assert_eq!(world.dispatch.queue_depth(&pool()), 0);
}

#[tokio::test(start_paused = true)]
async fn an_engine_lost_before_the_first_token_costs_the_client_nothing() {
    let world = World::new();
    let (bad, good) = (Engine::new(Script::Unreachable), Engine::new(Script::Speak(1, MS)));
    world.up(0, 1, 2, &bad);
    world.up(1, 1, 1, &good);
    let task = world.submit(spec("x"));
    assert_eq!(words(&task).await, "started:r0 resumed:r1 0=t0 end:stop");
    assert_eq!(task.view().receipt.unwrap().engine_version, "engine-1-1");
    assert_eq!(world.free(0), 2);
}

#[tokio::test(start_paused = true)]
async fn a_break_before_the_first_token_is_tried_again_on_the_same_replica_later() {
    let world = World::new();
    let engine = Engine::new(Script::Speak(1, MS));
    engine.then(Script::BreakAfter(0));
    engine.then(Script::Unreachable);
    world.up(0, 1, 1, &engine);
    let start = Instant::now();
    let task = world.submit(spec("x"));
    assert_eq!(words(&task).await, "started:r0 resumed:r0 resumed:r0 0=t0 end:stop");
    assert!(start.elapsed() >= 2 * SEC, "with a pause between the attempts");
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_never_answers_is_given_up_after_the_retries() {
    let world = World::new();
    let engine = Engine::new(Script::Unreachable);
    world.up(0, 1, 1, &engine);
    let task = world.submit(spec("x"));
    assert_eq!(words(&task).await, "started:r0 resumed:r0 resumed:r0 error:ENGINE_LOST:0");
    assert_eq!(engine.prompts().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_task_put_back_goes_before_those_that_came_later() {
    let world = World::new();
    let engine = Engine::new(Script::Speak(1, MS));
    engine.then(Script::Unreachable);
    world.up(0, 1, 1, &engine);
    let tasks = [world.submit(spec("first")), world.submit(spec("second"))];
    for task in &tasks {
        assert!(words(task).await.ends_with("end:stop"));
    }
    assert_eq!(engine.prompts(), ["first", "first", "second"]);
}

#[tokio::test(start_paused = true)]
async fn an_engine_lost_after_the_first_token_is_an_error_with_what_was_sent() {
    let world = World::new();
    world.up(0, 1, 1, &Engine::new(Script::BreakAfter(2)));
    let task = world.submit(spec("x"));
    assert_eq!(words(&task).await, "started:r0 0=t0 1=t1 error:ENGINE_LOST:2");
    let error = task.view().error.unwrap();
    assert!(error.retriable && error.message.contains("connection reset"), "{error:?}");
    let out = r#"orchd_tokens_out_total{pool_id="p",priority="interactive"}"#;
    assert_eq!((task.view().tokens_out, world.metric(out)), (Some(2), Some(2.0)), "ORCHD-USAGE-001");
    assert_eq!(task.view().tokens_in, None);
    assert_eq!(world.free(0), 1);
}

/// ORCHD-USAGE-001
#[tokio::test(start_paused = true)]
async fn a_replica_that_goes_down_ends_its_running_tasks_promptly() {
    let world = World::new();
    let engine = Engine::new(Script::HangAfter(2));
    world.up(0, 1, 1, &engine);
    let task = world.submit(spec("x"));
    until_entries(&task, 3).await;
    let start = Instant::now();
    world.down(0, 1);
    assert_eq!(words(&task).await, "started:r0 0=t0 1=t1 error:ENGINE_LOST:2");
    assert!(start.elapsed() < 250 * MS);
    assert_eq!(engine.running.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_task_on_a_replica_that_went_down_while_it_was_silent_runs_on_the_next_life() {
    let world = World::new();
    world.up(0, 1, 1, &Engine::new(Script::HangAfter(0)));
    let task = world.submit(spec("x"));
    until_entries(&task, 1).await;
    world.down(0, 1);
    tokio::time::sleep(20 * SEC).await;
    assert_eq!(task.view().state, TaskState::Queued);
    world.up(0, 2, 1, &Engine::new(Script::Speak(1, MS)));
    assert_eq!(words(&task).await, "started:r0 resumed:r0 0=t0 end:stop");
}

#[tokio::test(start_paused = true)]
async fn a_refused_request_fails_with_the_engines_code_and_is_not_tried_again() {
    let world = World::new();
    let engine = Engine::new(Script::Refuse(ErrorCode::ContextOverflow, "no".to_owned()));
    world.up(0, 1, 1, &engine);
    let task = world.submit(spec("x"));
    assert_eq!(words(&task).await, "started:r0 error:CONTEXT_OVERFLOW:0");
    assert_eq!(engine.prompts().len(), 1);
    assert_eq!(world.metric(r#"orchd_tasks_failed_total{pool_id="p",code="CONTEXT_OVERFLOW"}"#), Some(1.0));
}

/// LCPP-007
#[tokio::test(start_paused = true)]
async fn a_request_that_an_engine_refuses_takes_it_away_from_nobody() {
    let world = World::new();
    let engine = Engine::new(Script::Speak(1, MS));
    engine.then(Script::Refuse(ErrorCode::Internal, "Compute error.".to_owned()));
    engine.then(Script::Refuse(ErrorCode::InvalidParams, "image input is not supported".to_owned()));
    world.up(0, 1, 1, &engine);
    let start = Instant::now();
    let tasks = [world.submit(spec("bad")), world.submit(spec("worse")), world.submit(spec("good"))];
    assert_eq!(words(&tasks[0]).await, "started:r0 error:INTERNAL:0");
    assert_eq!(words(&tasks[1]).await, "started:r0 error:INVALID_PARAMS:0");
    assert_eq!(words(&tasks[2]).await, "started:r0 0=t0 end:stop");
    assert!(start.elapsed() < 10 * MS, "nobody waited: {:?}", start.elapsed());
    let errors = [0, 1].map(|n: usize| tasks[n].view().error.unwrap());
    assert!(errors.iter().all(|error| !error.retriable), "{errors:?}");
    assert_eq!(errors[1].message, "image input is not supported", "its owner reads what the engine said");
}

/// ORCHD-GATE-002
#[tokio::test(start_paused = true)]
async fn a_chat_lost_when_it_had_only_named_its_role_runs_again() {
    let world = World::new();
    let engine = Engine::new(Script::Speak(1, MS));
    engine.then(Script::BreakAfterRole);
    world.up(0, 1, 1, &engine);
    let task = world.submit(spec("x"));
    assert_eq!(words(&task).await, "started:r0 role resumed:r0 0=t0 end:stop");
}

#[tokio::test(start_paused = true)]
async fn a_replica_whose_adapter_is_bound_a_moment_late_still_serves() {
    let world = World::new();
    let engine = Engine::new(Script::Speak(1, MS));
    world.up(0, 1, 1, &engine);
    world.host.unbind(&support::key(0), 1);
    let task = world.submit(spec("x"));
    tokio::time::sleep(100 * MS).await;
    world.up(0, 1, 1, &engine);
    assert_eq!(words(&task).await, "started:r0 0=t0 end:stop");
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_waiting_tasks_at_once_and_running_ones_at_the_limit() {
    let world = World::new();
    world.up(0, 1, 1, &Engine::new(Script::Speak(u32::MAX, SEC)));
    let (running, waiting) = (world.submit(spec("r")), world.submit(spec("w")));
    until_entries(&running, 2).await;
    let start = Instant::now();
    world.shutdown.cancel();
    assert_eq!(world.dispatch.submit(spec("late")).unwrap_err(), AdmissionError::ShuttingDown);
    assert_eq!(words(&waiting).await, "error:INTERRUPTED:0");
    assert!(start.elapsed() < SEC);
    assert!(words(&running).await.contains("error:INTERRUPTED"));
    assert_eq!(start.elapsed(), Limits::default().drain);
    assert_eq!(running.view().state, TaskState::Interrupted);
    world.tracker.close();
    world.tracker.wait().await;
}

#[tokio::test(start_paused = true)]
async fn shutdown_lets_a_running_task_finish_and_does_not_wait_longer_than_that() {
    let world = World::new();
    world.up(0, 1, 1, &Engine::new(Script::Speak(3, SEC)));
    let running = world.submit(spec("r"));
    until_entries(&running, 2).await;
    let start = Instant::now();
    world.shutdown.cancel();
    world.tracker.close();
    world.tracker.wait().await;
    assert_eq!(start.elapsed(), 2 * SEC);
    assert!(matches!(all(&running).await.pop(), Some(task_log::Entry::End(_))));
}

/// ORCHD-STOP-002
#[tokio::test(start_paused = true)]
async fn an_interruption_ends_what_waits_and_runs_before_it_returns_and_the_loss_that_follows_is_not_told() {
    let world = World::new();
    let engine = Engine::new(Script::Speak(u32::MAX, SEC));
    engine.then(Script::Speak(1, MS));
    world.up(0, 1, 1, &engine);
    let done = world.submit(spec("d"));
    assert!(words(&done).await.ends_with("end:stop"));
    let (running, waiting) = (world.submit(spec("r")), world.submit(spec("w")));
    until_entries(&running, 2).await;
    world.shutdown.cancel();
    world.dispatch.interrupt_now();
    for task in [&running, &waiting] {
        assert_eq!(task.view().state, TaskState::Interrupted);
        let Some(task_log::Entry::Error(error)) = task.log().terminal().as_deref().cloned() else {
            panic!("its log has no end")
        };
        assert_eq!(error.code, ErrorCode::Interrupted);
    }
    assert_eq!(done.view().state, TaskState::Done);
    world.down(0, 1);
    let start = Instant::now();
    world.tracker.close();
    world.tracker.wait().await;
    assert!(start.elapsed() < SEC, "nothing waits for a drain any more: {:?}", start.elapsed());
    assert_eq!(running.view().state, TaskState::Interrupted);
    assert_eq!(engine.running.load(Ordering::SeqCst), 0);
}

/// ORCHD-STOP-002
#[tokio::test(start_paused = true)]
async fn nothing_is_admitted_after_an_interruption() {
    let world = World::new();
    world.dispatch.interrupt_now();
    assert_eq!(world.dispatch.submit(spec("late")).unwrap_err(), AdmissionError::ShuttingDown);
}

/// LCPP-007
#[tokio::test(start_paused = true)]
async fn the_hint_of_a_refusal_reaches_its_owner() {
    let world = World::new();
    let engine = Engine::new(Script::Speak(1, MS));
    engine.then(Script::Refuse(ErrorCode::ContextOverflow, "no".to_owned()));
    world.up(0, 1, 1, &engine);
    let task = world.submit(spec("x"));
    all(&task).await;
    assert_eq!(task.view().error.unwrap().hint.as_deref(), Some("ask otherwise"));
}
