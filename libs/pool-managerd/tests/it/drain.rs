//! Drain, undrain, reset and stop: operations with an id, and what they do to a running engine.

use std::time::{Duration, Instant};

use wire::{ErrorCode, HandoffState, OperationKind, OperationState, Phase, Wanted};

use crate::harness::{DEADLINE, Generation, engines_of, setup, signal, within};

const SLOW: &[(&str, &str)] = &[("TOKEN_MS", "10")];

/// POOLD-DRAIN-001, POOLD-OPS-001
#[tokio::test]
async fn a_drain_closes_the_gate_lets_what_runs_end_and_then_stops() {
    let setup = setup().with_faults(SLOW);
    let manager = setup.start().await;
    let handoff = manager.ready().await;
    let generation = Generation::begin(&handoff, 100).await;
    let drain = manager.begin("drain", r#"{"deadline_ms": 30000}"#).await;
    within(Duration::from_secs(5), "the gate is closed", || {
        setup.handoff().is_some_and(|handoff| handoff.state == HandoffState::Draining)
    })
    .await;
    assert!(generation.runs(), "it was to be closed while something runs");
    assert_eq!(manager.replica().await.phase, Phase::Draining);
    assert_eq!(manager.pool().await.wanted, Wanted::Drained);
    assert_eq!(manager.operation(&drain).await.state, OperationState::Running);
    assert!(generation.was_whole().await, "what ran was cut off");

    let ended = manager.ended(&drain).await;
    assert_eq!((ended.kind, ended.state), (OperationKind::Drain, OperationState::Succeeded));
    assert_eq!((ended.progress.replicas_done, ended.progress.replicas_total), (1, 1));
    assert_eq!(ended.outcome.unwrap().message, "stopped, after everything that ran had ended");
    assert!(ended.ended_at.is_some());
    assert_eq!(manager.replica().await.phase, Phase::Stopped);
    assert_eq!(setup.handoff(), None);
    assert_eq!(engines_of(setup.runtime()), Vec::<u32>::new());

    let undrain = manager.begin("undrain", "").await;
    assert_eq!(manager.ended(&undrain).await.state, OperationState::Succeeded);
    assert_eq!(manager.pool().await.wanted, Wanted::Running);
    assert!(manager.ready().await.generation > handoff.generation);
    manager.running.shutdown().await;
}

/// POOLD-DRAIN-002
#[tokio::test]
async fn what_still_runs_at_the_deadline_is_cut_off_and_counted() {
    let setup = setup().with_faults(&[("HANG_AFTER", "1")]);
    let manager = setup.start().await;
    let handoff = manager.ready().await;
    let generation = Generation::begin(&handoff, 100).await;
    let begun = Instant::now();
    let drain = manager.begin("drain", r#"{"deadline_ms": 400}"#).await;
    let ended = manager.ended(&drain).await;
    assert!(begun.elapsed() >= Duration::from_millis(400), "cut off before its time");
    assert_eq!(ended.state, OperationState::Succeeded);
    let message = ended.outcome.unwrap().message;
    assert!(message.starts_with("stopped; 1 of what ran"), "{message}");
    assert!(!generation.was_whole().await);
    manager.running.shutdown().await;
}

/// POOLD-OPS-003
#[tokio::test]
async fn an_undrain_calls_off_a_drain_and_the_same_engine_serves_on() {
    let setup = setup().with_faults(SLOW);
    let manager = setup.start().await;
    let before = manager.ready().await;
    let generation = Generation::begin(&before, 200).await;
    let drain = manager.begin("drain", "").await;
    manager.phase(Phase::Draining).await;
    let undrain = manager.begin("undrain", "").await;
    assert_eq!(manager.ended(&undrain).await.state, OperationState::Succeeded);
    let called_off = manager.ended(&drain).await;
    assert_eq!(called_off.state, OperationState::Failed);
    assert_eq!(called_off.outcome.unwrap().message, "called off by undrain");
    assert_eq!(manager.ready().await, before, "the claim is as it was");
    assert!(generation.was_whole().await);
    manager.running.shutdown().await;
}

/// POOLD-OPS-003
#[tokio::test]
async fn a_stop_or_a_drain_calls_off_an_undrain_whose_engine_still_loads() {
    for what in ["stop", "drain"] {
        let setup = setup().with_faults(&[("LOAD_MS", "600000")]);
        let manager = setup.start().await;
        manager.until(|r| r.pid.is_some()).await;
        let stop = manager.stop().await;
        assert_eq!(manager.ended(&stop).await.state, OperationState::Succeeded);
        let undrain = manager.begin("undrain", "").await;
        manager.until(|r| r.pid.is_some()).await;
        let (status, answer) = manager.ask("reload", "").await;
        assert_eq!(status, 409, "{answer}");
        let ends = manager.begin(what, "").await;
        let called_off = manager.ended(&undrain).await;
        assert_eq!(called_off.state, OperationState::Failed);
        assert_eq!(called_off.outcome.unwrap().message, format!("called off by {what}"));
        assert_eq!(manager.ended(&ends).await.state, OperationState::Succeeded);
        assert_eq!(manager.replica().await.phase, Phase::Stopped, "{what}");
        assert_ne!(manager.pool().await.wanted, Wanted::Running, "{what}");
        assert_eq!(engines_of(setup.runtime()), Vec::<u32>::new(), "{what}");
        manager.running.shutdown().await;
    }
}

/// POOLD-OPS-002
#[tokio::test]
async fn a_second_operation_on_the_pool_is_refused_and_names_the_first() {
    let setup = setup().with_faults(SLOW);
    let manager = setup.start().await;
    let handoff = manager.ready().await;
    let _generation = Generation::begin(&handoff, 100_000).await;
    let drain = manager.begin("drain", "").await;
    for what in ["drain", "reset", "preload"] {
        let (status, answer) = manager.ask(what, "").await;
        assert_eq!(status, 409, "{what}: {answer}");
        assert_eq!(answer["error"]["code"], ErrorCode::Conflict.as_str());
        assert!(answer["error"]["message"].as_str().unwrap().contains(drain.as_str()), "{answer}");
    }
    let (status, answer) = manager.ask("drain", r#"{"deadline": 5}"#).await;
    assert_eq!((status, &answer["error"]["code"]), (400, &ErrorCode::InvalidParams.as_str().into()));
    let stop = manager.begin("stop", "").await;
    assert_eq!(manager.ended(&stop).await.state, OperationState::Succeeded);
    assert_eq!(manager.replica().await.phase, Phase::Stopped);
    assert_eq!(manager.pool().await.wanted, Wanted::Stopped);
    manager.running.shutdown().await;
}

/// POOLD-RESET-001
#[tokio::test]
async fn a_reset_closes_the_breaker_and_starts_at_once() {
    let setup = setup().with_faults(&[("EXIT_AT_START", "3")]);
    let manager = setup.start().await;
    let open = manager.phase(Phase::BreakerOpen).await;
    assert!(open.next_attempt_ms.unwrap() > 60_000, "a trial is minutes away");
    let reset = manager.begin("reset", "").await;
    assert_eq!(manager.ended(&reset).await.state, OperationState::Succeeded);
    let again = manager.until(|r| r.phase == Phase::BreakerOpen && r.generation > open.generation).await;
    assert_eq!(
        again.generation - open.generation,
        u64::from(setup.timings.restart.open_after),
        "a whole row of lives"
    );
    assert_eq!(again.failures, setup.timings.restart.open_after, "counted anew");
    manager.running.shutdown().await;
}

/// POOLD-RESET-001
#[tokio::test]
async fn a_reset_of_an_engine_that_serves_forgets_its_losses_and_leaves_it_alone() {
    let setup = setup();
    let manager = setup.start().await;
    let first = manager.ready().await;
    signal(first.pid.unwrap(), rustix::process::Signal::KILL);
    let again = manager.until(|r| r.phase == Phase::Ready && r.generation > first.generation).await;
    assert_eq!(again.failures, 1);
    let reset = manager.begin("reset", "").await;
    assert_eq!(manager.ended(&reset).await.state, OperationState::Succeeded);
    let after = manager.replica().await;
    assert_eq!((after.failures, after.pid, after.phase), (0, again.pid, Phase::Ready));
    // It forgives what came before it, and no more.
    signal(after.pid.unwrap(), rustix::process::Signal::KILL);
    let lost = manager.until(|r| r.phase == Phase::Ready && r.generation > after.generation).await;
    assert_eq!(lost.failures, 1);
    manager.running.shutdown().await;
}

/// POOLD-DRAIN-003
#[tokio::test]
async fn a_shutdown_does_not_wait_for_a_drain() {
    let setup = setup().with_faults(SLOW);
    let manager = setup.start().await;
    let handoff = manager.ready().await;
    let generation = Generation::begin(&handoff, 100_000).await;
    manager.begin("drain", r#"{"deadline_ms": 86400000}"#).await;
    manager.phase(Phase::Draining).await;
    manager.running.shutdown().await;
    assert_eq!(engines_of(setup.runtime()), Vec::<u32>::new());
    assert!(!generation.was_whole().await);
}

/// POOLD-STOP-002
#[tokio::test]
async fn an_engine_that_has_closed_its_port_and_waits_for_its_clients_is_not_waited_for() {
    let mut setup = setup().with_faults(&[("LINGER", "1")]);
    setup.timings.stop_grace = Duration::from_mins(1);
    let manager = setup.start().await;
    manager.ready().await;
    let begun = Instant::now();
    let stop = manager.stop().await;
    assert_eq!(manager.ended(&stop).await.state, OperationState::Succeeded);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert_eq!(engines_of(setup.runtime()), Vec::<u32>::new());
    manager.running.shutdown().await;
}

/// POOLD-STOP-002
#[tokio::test]
async fn an_engine_that_is_stopped_while_it_is_proven_is_not_waited_for_either() {
    let mut setup = setup().with_faults(&[("LINGER", "1"), ("MUTE", "1")]);
    setup.timings.stop_grace = Duration::from_mins(1);
    setup.timings.canary_timeout = Duration::from_mins(5);
    let manager = setup.start().await;
    // Until then TERM would end it at once.
    let log = setup.runtime().join("run/llamacpp-p.r0.log");
    let loaded = || std::fs::read_to_string(&log).is_ok_and(|text| text.contains("model loaded"));
    within(DEADLINE, "it has loaded", loaded).await;
    let begun = Instant::now();
    let stop = manager.stop().await;
    assert_eq!(manager.ended(&stop).await.state, OperationState::Succeeded);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert_eq!(setup.handoff(), None);
    assert_eq!(engines_of(setup.runtime()), Vec::<u32>::new());
    manager.running.shutdown().await;
}

/// POOLD-DRAIN-003
#[tokio::test]
async fn a_drain_that_cannot_be_published_still_hears_a_stop_a_shutdown_and_the_engines_end() {
    for what in ["stop", "shutdown", "killed"] {
        let setup = setup();
        let manager = setup.start().await;
        let before = manager.ready().await;
        // Nothing can be written where a file has the directory's place.
        let engines = setup.runtime().join("engines");
        std::fs::rename(&engines, setup.runtime().join("aside")).unwrap();
        std::fs::write(&engines, "").unwrap();
        let drain = manager.begin("drain", r#"{"deadline_ms": 86400000}"#).await;
        manager.phase(Phase::Draining).await;
        let begun = Instant::now();
        match what {
            "stop" => {
                let stop = manager.begin("stop", "").await;
                assert_eq!(manager.ended(&stop).await.state, OperationState::Succeeded);
            }
            "killed" => {
                signal(before.pid.unwrap(), rustix::process::Signal::KILL);
                manager.ended(&drain).await;
            }
            _ => {}
        }
        let ended = tokio::time::timeout(Duration::from_secs(20), manager.running.shutdown()).await;
        assert!(ended.is_ok(), "{what}: the shutdown waits for a drain of a day");
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}: {:?}", begun.elapsed());
        assert_eq!(engines_of(setup.runtime()), Vec::<u32>::new(), "{what}");
    }
}
