//! A task's journey: order, slots, priorities, bounds, idempotency.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test helper fails by panicking"
)]

mod support;

use std::sync::atomic::Ordering;
use std::time::Duration;

use dispatch::{AdmissionError, CallerId, LimitReached, Limits, Owner, TaskFilter, TaskSpec};
use support::{Engine, Script, World, all, batch, id, key, owner, pool, spec, words};
use wire::TaskState;
use wire::config::FullPolicy;
use wire::task::{Placement, PlacementMode};

const MS: Duration = Duration::from_millis(1);

#[tokio::test(start_paused = true)]
async fn a_task_is_started_speaks_without_gaps_and_ends_once() {
    let world = World::new();
    world.up(0, 1, 1, &Engine::new(Script::Speak(3, MS)));
    let task = world.submit(spec("x"));
    assert_eq!(words(&task).await, "started:r0 0=t0 1=t1 2=t2 end:stop");
    assert_eq!(world.free(0), 1, "the slot is free when the end is read");

    let view = task.view();
    assert_eq!(view.state, TaskState::Done);
    assert_eq!((view.tokens_in, view.tokens_out), (Some(7), Some(4)));
    assert_eq!(view.decode_time_ms, Some(3));
    assert_eq!(view.placement.unwrap(), "p/r0: the only replica with a free slot (1 of 1 slots free)");
    let receipt = view.receipt.unwrap();
    assert_eq!((receipt.engine_version.as_str(), receipt.model_digest.as_str()), ("engine-0-1", "digest"));
    assert_eq!(receipt.seed.unwrap().0, 42);
    assert_eq!(receipt.tokens_sha256.len(), 64);
}

#[tokio::test(start_paused = true)]
async fn what_is_counted_is_what_happened() {
    let world = World::new();
    world.up(0, 1, 1, &Engine::new(Script::Speak(3, MS)));
    all(&world.submit(spec("x"))).await;
    all(&world.submit(spec("y"))).await;
    let class = r#"{pool_id="p",priority="interactive"}"#;
    assert_eq!(world.metric(&format!("orchd_tokens_out_total{class}")), Some(8.0));
    assert_eq!(world.metric(&format!("orchd_tokens_in_total{class}")), Some(14.0));
    assert_eq!(world.metric(&format!("orchd_tasks_enqueued_total{class}")), Some(2.0));
    assert_eq!(world.metric(&format!("orchd_tasks_started_total{class}")), Some(2.0));
    assert_eq!(world.metric(&format!("orchd_queue_depth{class}")), Some(0.0));
    assert_eq!(world.metric(&format!("orchd_inter_token_seconds_count{class}")), Some(4.0));
    assert_eq!(
        world.metric(r#"orchd_placement_decisions_total{pool_id="p",outcome="most_free"}"#),
        Some(2.0)
    );
    assert_eq!(world.metric(r#"orchd_slots_total{pool_id="p"}"#), Some(1.0));
}

/// ORCHD-ADMIT-006
#[tokio::test(start_paused = true)]
async fn a_task_waits_for_an_engine_and_says_so_and_is_served_when_one_comes_up() {
    let world = World::new();
    let task = world.submit(spec("x"));
    tokio::time::sleep(Duration::from_secs(60)).await;
    let view = task.view();
    assert_eq!((view.state, view.queue_position), (TaskState::Queued, Some(0)));
    assert_eq!(view.placement.unwrap(), "waits: pool p has no ready engine");
    assert_eq!(task.log().entries_len(), 0, "no invented tokens");
    world.up(0, 1, 1, &Engine::new(Script::Speak(1, MS)));
    assert_eq!(words(&task).await, "started:r0 0=t0 end:stop");
    assert_eq!(task.view().queue_ms, Some(60_000));
}

#[tokio::test(start_paused = true)]
async fn slots_bound_what_runs_and_freed_ones_are_used() {
    let world = World::with(100, FullPolicy::Reject, Limits::default());
    let engine = Engine::new(Script::Speak(3, MS));
    world.up(0, 1, 2, &engine);
    let tasks: Vec<_> = (0..20).map(|n| world.submit(spec(&n.to_string()))).collect();
    for task in &tasks {
        assert!(words(task).await.ends_with("end:stop"));
    }
    assert_eq!(engine.peak.load(Ordering::SeqCst), 2);
    let order: Vec<_> = (0..20).map(|n| n.to_string()).collect();
    assert_eq!(engine.prompts(), order, "first come, first served");
    assert_eq!(world.free(0), 2);
}

#[tokio::test(start_paused = true)]
async fn interactive_goes_before_batch() {
    let world = World::new();
    let engine = Engine::new(Script::Speak(1, MS));
    let tasks = [world.submit(batch("b0")), world.submit(batch("b1")), world.submit(spec("i0"))];
    assert_eq!(tasks[1].view().queue_position, Some(2));
    world.up(0, 1, 1, &engine);
    for task in &tasks {
        all(task).await;
    }
    assert_eq!(engine.prompts(), ["i0", "b0", "b1"]);
}

#[tokio::test(start_paused = true)]
async fn batch_does_not_starve_under_a_steady_stream_of_interactive_tasks() {
    let world = World::with(100, FullPolicy::Reject, Limits::default());
    let engine = Engine::new(Script::Speak(1, MS));
    let waiting = world.submit(batch("b"));
    let others: Vec<_> = (0..10).map(|n| world.submit(spec(&n.to_string()))).collect();
    world.up(0, 1, 1, &engine);
    all(&waiting).await;
    assert_eq!(engine.prompts().iter().position(|prompt| prompt == "b"), Some(5));
    for task in &others {
        all(task).await;
    }
}

/// ORCHD-FAIR-001
#[tokio::test(start_paused = true)]
async fn callers_take_turns() {
    let world = World::with(100, FullPolicy::Reject, Limits::default());
    let engine = Engine::new(Script::Speak(1, MS));
    let of = |caller: &str, prompt: &str| TaskSpec { caller: CallerId::key(caller), ..spec(prompt) };
    let mut tasks: Vec<_> = (0..5).map(|n| world.submit(of("flood", &format!("f{n}")))).collect();
    tasks.extend((0..2).map(|n| world.submit(of("other", &format!("o{n}")))));
    assert_eq!(tasks[5].view().queue_position, Some(1));
    world.up(0, 1, 1, &engine);
    for task in &tasks {
        all(task).await;
    }
    assert_eq!(engine.prompts(), ["f0", "o0", "f1", "o1", "f2", "f3", "f4"]);
}

/// ORCHD-FAIR-004
#[tokio::test(start_paused = true)]
async fn a_flood_is_told_that_the_rest_of_the_places_is_for_others() {
    let world = World::with(4, FullPolicy::Reject, Limits::default());
    let of = |caller: &str| TaskSpec { caller: CallerId::key(caller), ..spec("x") };
    let _other = world.submit(of("other"));
    let _flood = [world.submit(of("flood")), world.submit(of("flood"))];
    let refused = world.dispatch.submit(of("flood")).unwrap_err();
    assert!(matches!(refused, AdmissionError::OverShare { held: 2, capacity: 4, .. }), "{refused:?}");
    assert!(refused.to_string().contains("2 of your tasks wait in pool p"), "{refused}");
}

/// ORCHD-LIMIT-003
#[tokio::test(start_paused = true)]
async fn a_task_counts_until_it_has_ended_however_it_ends() {
    let callers = serde_json::from_str(r#"{"default":{"concurrent_tasks":1}}"#).unwrap();
    let world = World::with(4, FullPolicy::Reject, Limits { callers, ..Limits::default() });
    let waiting = world.submit(spec("x"));
    let refused = world.dispatch.submit(spec("y")).unwrap_err();
    let (reached, retry_after) = (LimitReached::Concurrent(1), Duration::from_secs(1));
    assert_eq!(refused, AdmissionError::RateLimited { reached, retry_after });
    waiting.cancel();
    let expires = world.submit(TaskSpec { deadline: Some(MS), ..spec("z") });
    assert!(words(&expires).await.starts_with("error:DEADLINE_EXCEEDED"));
    world.up(0, 1, 1, &Engine::new(Script::Speak(1, MS)));
    for _ in 0..2 {
        assert!(words(&world.submit(spec("x"))).await.ends_with("end:stop"));
    }
}

/// ORCHD-ADMIT-009
#[tokio::test(start_paused = true)]
async fn a_deadline_that_the_measured_rate_cannot_meet_is_refused_with_the_estimate() {
    let world = World::with(8, FullPolicy::Reject, Limits::default());
    world.up(0, 1, 1, &Engine::new(Script::Speak(1, Duration::from_secs(9))));
    let by = |seconds| TaskSpec { deadline: Some(Duration::from_secs(seconds)), ..spec("x") };
    let unmeasured = world.submit(by(1));
    assert!(words(&unmeasured).await.starts_with("started"), "nothing is refused on a guess");
    for _ in 0..4 {
        all(&world.submit(spec("x"))).await;
    }
    let running = world.submit(spec("x"));
    world.until_free(0, 0).await;
    let refused = world.dispatch.submit(by(17)).unwrap_err();
    let nine = Duration::from_secs(9);
    let deadline = Duration::from_secs(17);
    let expected = AdmissionError::DeadlineUnmet { pool: pool(), deadline, start: nine, service: nine };
    assert_eq!(refused, expected);
    assert_eq!(world.dispatch.queue_depth(&pool()), 0);
    let met = world.submit(by(19));
    assert!(words(&met).await.ends_with("end:stop"));
    all(&running).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let stale = world.submit(by(1));
    assert!(words(&stale).await.starts_with("started"), "an old measurement refuses nobody");
}

/// ORCHD-ADMIT-003, ORCHD-ETA-001, ORCHD-ETA-003
#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_with_a_measured_wait() {
    let world = World::with(2, FullPolicy::Reject, Limits::default());
    let engine = Engine::new(Script::Speak(1, Duration::from_secs(9)));
    world.up(0, 1, 1, &engine);
    let first = world.submit(spec("x"));
    assert_eq!(first.queue_place().now().unwrap().predicted_start_ms, None);
    all(&first).await;
    let running = world.submit(spec("r"));
    world.until_free(0, 0).await;
    let waiting = [world.submit(spec("a")), world.submit(spec("b"))];
    let told = waiting[1].queue_place().now().unwrap();
    assert_eq!((told.position, told.predicted_start_ms), (1, Some(18_000)));
    let refused = world.dispatch.submit(spec("c")).unwrap_err();
    let retry_after = Duration::from_secs(9);
    assert_eq!(refused, AdmissionError::QueueFull { pool: pool(), waiting: 2, capacity: 2, retry_after });
    assert_eq!(world.metric(r#"orchd_tasks_rejected_total{pool_id="p",reason="queue_full"}"#), Some(1.0));
    for task in waiting.iter().chain([&running]) {
        all(task).await;
    }
    let error = |what| {
        world.metric(&format!(r#"orchd_eta_error_seconds_{what}{{pool_id="p",priority="interactive"}}"#))
    };
    assert_eq!(error("count"), Some(3.0), "the first was told nothing");
    assert!(error("sum").is_some_and(|sum| sum < 0.01), "{:?}", error("sum"));
}

/// ORCHD-ETA-001
#[tokio::test(start_paused = true)]
async fn a_start_that_is_told_counts_on_no_replica_that_has_just_failed() {
    let world = World::new();
    let engine = Engine::new(Script::Speak(1, Duration::from_secs(9)));
    world.up(0, 1, 1, &engine);
    all(&world.submit(spec("x"))).await;
    let broken = Engine::new(Script::Unreachable);
    world.up(1, 1, 1, &broken);
    // It is tried first, because nothing was measured of it, and goes on to the other one.
    let runs = world.submit(spec("a"));
    world.until_free(0, 0).await;
    assert_eq!(world.free(1), 1, "the registry still has it as ready");
    let waits = world.submit(spec("b"));
    let told = waits.queue_place().now().unwrap();
    assert_eq!((told.position, told.predicted_start_ms), (0, Some(9_000)));
    assert!(words(&runs).await.ends_with("end:stop"));
}

/// ORCHD-GATE-002
#[tokio::test(start_paused = true)]
async fn an_engine_that_is_gone_does_not_use_up_a_tasks_tries_before_the_probes_have_seen_it() {
    let world = World::new();
    world.up(0, 1, 2, &Engine::new(Script::Unreachable));
    // Both lose it at the same moment, which is one loss.
    let tasks = [world.submit(spec("a")), world.submit(spec("b"))];
    tokio::time::sleep(Duration::from_millis(2_900)).await;
    world.down(0, 1);
    world.up(0, 2, 1, &Engine::new(Script::Speak(1, MS)));
    for task in &tasks {
        let words = words(task).await;
        assert!(words.ends_with("end:stop"), "{words}");
    }
}

#[tokio::test(start_paused = true)]
async fn drop_lru_gives_up_the_oldest_batch_task_with_an_error() {
    let world = World::with(2, FullPolicy::DropLru, Limits::default());
    let dropped = world.submit(batch("old"));
    let kept = world.submit(batch("young"));
    world.submit(spec("new"));
    assert_eq!(words(&dropped).await, "error:QUEUE_FULL:0");
    assert_eq!(dropped.view().state, TaskState::Failed);
    assert_eq!(kept.view().state, TaskState::Queued);
    assert_eq!(world.dispatch.queue_depth(&pool()), 2);
}

#[tokio::test(start_paused = true)]
async fn a_readers_place_in_the_queue_is_told_as_it_moves() {
    let world = World::new();
    let engine = Engine::new(Script::Speak(1, MS));
    let tasks: Vec<_> = (0..3).map(|n| world.submit(spec(&n.to_string()))).collect();
    let mut place = tasks[2].queue_place();
    assert_eq!(place.changed().await.unwrap().position, 2);
    tasks[0].cancel();
    assert_eq!(place.changed().await.unwrap().position, 1);
    world.up(0, 1, 1, &engine);
    assert_eq!(place.changed().await.unwrap().position, 0);
    assert_eq!(place.changed().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_pinned_task_waits_for_its_replica_while_others_pass() {
    let world = World::new();
    let pinned = TaskSpec {
        placement: Some(Placement {
            mode: PlacementMode::Pin,
            pool_id: None,
            replica_id: Some(key(1).replica),
        }),
        ..spec("pinned")
    };
    let pinned = world.submit(pinned);
    let free = world.submit(spec("free"));
    world.up(0, 1, 1, &Engine::new(Script::Speak(1, MS)));
    assert_eq!(words(&free).await, "started:r0 0=t0 end:stop");
    assert_eq!(pinned.view().placement.unwrap(), "waits: p/r1, where it is pinned, has no ready engine");
    world.up(1, 1, 1, &Engine::new(Script::Speak(1, MS)));
    assert_eq!(words(&pinned).await, "started:r1 0=t0 end:stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_equal_submissions_are_one_execution() {
    let world = World::new();
    let engine = Engine::new(Script::Speak(2, Duration::ZERO));
    world.up(0, 1, 4, &engine);
    let submit = |fingerprint| {
        let dispatch = world.dispatch.clone();
        let spec = TaskSpec { task_id: Some(id("mine")), fingerprint, ..spec("x") };
        tokio::spawn(async move { dispatch.submit(spec) })
    };
    let submissions: Vec<_> = (0..1_000).map(|_| submit([1; 32])).collect();
    let mut created = 0;
    for submission in submissions {
        let task = submission.await.unwrap().unwrap();
        created += u32::from(task.created_now);
        assert!(words(&task).await.ends_with("end:stop"));
    }
    assert_eq!((created, engine.prompts().len()), (1, 1));
    let conflict = submit([2; 32]).await.unwrap().unwrap_err();
    assert_eq!(conflict, AdmissionError::Conflict { task_id: id("mine") });
}

#[tokio::test(start_paused = true)]
async fn a_task_belongs_to_its_owner_and_the_control_scope_sees_all() {
    let world = World::new();
    let task = world.submit(spec("x"));
    let other = Owner::Data("two".into());
    assert!(world.dispatch.task(task.id(), &other).is_none());
    assert!(world.dispatch.task(task.id(), &owner()).is_some());
    assert!(world.dispatch.task(task.id(), &Owner::Control).is_some());
    let list =
        |owner| world.dispatch.tasks(&TaskFilter { owner, state: None, limit: 10, before: None }).tasks.len();
    assert_eq!((list(other), list(owner()), list(Owner::Control)), (0, 1, 1));
}

/// SEC-007, ORCHD-ADMIT-004
#[tokio::test(start_paused = true)]
async fn an_id_says_nothing_of_other_owners_tasks() {
    let world = World::with(8, FullPolicy::Reject, Limits { kept_tasks: 1, ..Limits::default() });
    let two = || Owner::Data("two".into());
    let of = |owner: Owner, print: u8| {
        let spec = TaskSpec { task_id: Some(id("same")), owner, fingerprint: [print; 32], ..spec("x") };
        world.dispatch.submit(spec)
    };
    let created = |task: Result<dispatch::Task, AdmissionError>| task.map(|task| task.created_now);
    let first = of(owner(), 1).unwrap();
    let second = of(two(), 2).unwrap();
    assert!(second.created_now, "neither a conflict nor another one's task");
    let conflict = Err(AdmissionError::Conflict { task_id: id("same") });
    assert_eq!((created(of(owner(), 1)), created(of(owner(), 2))), (Ok(false), conflict.clone()));
    assert_eq!((created(of(two(), 2)), created(of(two(), 1))), (Ok(false), conflict));
    first.cancel();
    let state = |owner| world.dispatch.task(&id("same"), &owner).map(|task| task.view().state);
    assert_eq!((state(owner()), state(two())), (Some(TaskState::Cancelled), Some(TaskState::Queued)));
    assert_eq!(state(Owner::Control), Some(TaskState::Queued), "the newest");
    assert_eq!(state(Owner::Data("three".into())), None);
    second.cancel();
    assert_eq!(
        (state(owner()), state(two())),
        (None, Some(TaskState::Cancelled)),
        "only the oldest is let go"
    );
}

#[tokio::test(start_paused = true)]
async fn names_resolve_and_a_staged_models_name_does_so_later() {
    let world = World::new();
    assert_eq!(world.dispatch.resolve("alias").unwrap(), pool());
    assert!(world.dispatch.resolve("staged").is_err());
    world.dispatch.learn_model_name(&pool(), "staged");
    assert_eq!(world.dispatch.resolve("staged").unwrap(), pool());
    let unknown = TaskSpec { model: "alais".to_owned(), ..spec("x") };
    let error = world.dispatch.submit(unknown).unwrap_err();
    assert!(matches!(error, AdmissionError::UnknownModel(unknown) if unknown.nearest == ["alias"]));
}

/// ORCHD-LIMIT-001, ORCHD-LIMIT-002
#[tokio::test(start_paused = true)]
async fn a_task_that_found_no_place_costs_its_caller_nothing() {
    let callers = serde_json::from_str(
        r#"{"default":{"requests_per_minute":2,"tokens_per_minute":10000,"concurrent_tasks":2}}"#,
    )
    .unwrap();
    let world = World::with(1, FullPolicy::Reject, Limits { callers, ..Limits::default() });
    let first = world.submit(spec("1"));
    for _ in 0..20 {
        let refused = world.dispatch.submit(spec("2"));
        assert!(matches!(refused, Err(AdmissionError::QueueFull { .. })), "{refused:?}");
    }
    first.cancel();
    world.submit(spec("3"));
}
