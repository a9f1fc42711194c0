//! Losses: seen at once, explained, and followed by the right next try.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pool_managerd::PrepareError;
use rustix::process::Signal;
use wire::config::PoolKind;
use wire::{Phase, StepStatus};

use crate::harness::{DEADLINE, engines_of, error, setup, signal, within};

/// POOLD-LOSS-001
#[tokio::test]
async fn a_killed_engine_loses_its_handoff_at_once_and_comes_back_as_a_new_generation() {
    let setup = setup();
    let manager = setup.start().await;
    let first = manager.ready().await;
    signal(first.pid.unwrap(), Signal::KILL);
    // The next life may be ready within the limit: then its claim has replaced the old one.
    let withdrawn = || setup.handoff().is_none_or(|h| h.generation != first.generation);
    // How soon is measured by the chaos suite (R1).
    within(DEADLINE, "the handoff of a killed engine is gone", withdrawn).await;
    let replica = manager.until(|r| r.phase == Phase::Ready && r.generation > first.generation).await;
    assert_eq!(setup.handoff().unwrap().generation, replica.generation);
    assert_ne!(replica.pid, first.pid);
    let error = error(&replica);
    assert_eq!(error.cause, "signal");
    assert!(
        error.message.contains("SIGKILL") && error.message.contains("while serving"),
        "{}",
        error.message
    );
    assert!(
        manager
            .metrics()
            .await
            .contains(r#"poold_engine_restarts_total{cause="signal",pool_id="p",replica_id="r0"} 1"#)
    );
    manager.running.shutdown().await;
}

/// POOLD-VIEW-001
#[tokio::test]
async fn an_engine_that_exits_at_once_is_counted_explained_and_left_to_the_breaker() {
    let setup = setup().with_faults(&[("EXIT_AT_START", "3"), ("SAY", "the reason, in its own words")]);
    let manager = setup.start().await;
    let replica = manager.phase(Phase::BreakerOpen).await;
    assert_eq!((replica.failures, replica.generation), (4, 4), "as many lives as the breaker allows");
    assert!(replica.next_attempt_ms.unwrap() > 200_000, "{replica:?}");
    let error = error(&replica);
    assert_eq!(error.cause, "exit");
    assert_eq!(replica.losses, BTreeMap::from([("exit".to_owned(), 4)]));
    assert!(error.message.contains("exited with code 3 while starting"), "{}", error.message);
    assert!(error.message.contains("llamacpp-p.r0.log"), "{}", error.message);
    let reasons = error.log_tail.iter().filter(|line| line.contains("the reason, in its own words")).count();
    assert_eq!(reasons, 1, "the lines of this life only: {:?}", error.log_tail);
    assert!(manager.metrics().await.contains(r#"poold_breaker_state{pool_id="p",replica_id="r0"} 1"#));
    assert_eq!(setup.handoff(), None);
    let (status, words) = manager.step("p/warmup").await;
    assert_eq!(status, StepStatus::Running, "clients take Failed as final: {words}");
    assert!(words.starts_with("breaker open; next trial in "), "{words}");

    manager.stop().await;
    manager.phase(Phase::Stopped).await;
    assert_eq!(manager.step("p/warmup").await, (StepStatus::Pending, "stopped".to_owned()));
    manager.running.shutdown().await;
}

#[tokio::test]
async fn a_loss_that_is_made_good_never_shows_a_failed_step() {
    let mut setup = setup();
    setup.timings.restart.pauses = vec![Duration::from_mins(5)];
    let manager = setup.start().await;
    signal(manager.ready().await.pid.unwrap(), Signal::KILL);
    manager.phase(Phase::Backoff).await;
    let (status, words) = manager.step("p/warmup").await;
    assert_eq!(status, StepStatus::Running);
    assert!(words.starts_with("the engine was lost; starting again in "), "{words}");
    manager.stop().await;
    manager.phase(Phase::Stopped).await;
    manager.preload().await;
    manager.ready().await;
    manager.stop().await;
    manager.phase(Phase::Stopped).await;
    assert_eq!(manager.step("p/warmup").await, (StepStatus::Pending, "stopped".to_owned()));
    manager.running.shutdown().await;
}

#[tokio::test]
async fn a_model_that_is_gone_is_prepared_once_more_before_it_counts_as_missing() {
    let faults = [("EXIT_AT_START", "1"), ("SAY", "failed to open /m.gguf (No such file or directory)")];
    let setup = setup().with_faults(&faults);
    let manager = setup.start().await;
    let replica = manager.phase(Phase::Failed).await;
    assert_eq!(error(&replica).cause, "model_not_found");
    assert_eq!((replica.generation, setup.preparer.calls.load(Ordering::SeqCst)), (2, 2));
    assert_eq!(replica.losses, BTreeMap::from([("model_not_found".to_owned(), 2)]));
    let metrics = manager.metrics().await;
    let after_the_first_only =
        r#"poold_engine_restarts_total{cause="model_not_found",pool_id="p",replica_id="r0"} 1"#;
    assert!(metrics.contains(after_the_first_only), "{metrics}");
    assert_eq!(manager.step("p/warmup").await.0, StepStatus::Failed);
    manager.running.shutdown().await;
}

#[tokio::test]
async fn a_binary_that_was_deleted_is_prepared_again() {
    let setup = setup();
    setup.preparer.binary_once(&setup.runtime().join("deleted"));
    let manager = setup.start().await;
    manager.ready().await;
    assert_eq!(setup.preparer.calls.load(Ordering::SeqCst), 2);
    manager.running.shutdown().await;
}

/// POOLD-RESTART-003, POOLD-VIEW-001
#[tokio::test]
async fn a_bad_flag_fails_at_once_and_is_tried_again_only_when_asked() {
    let faults = [("EXIT_AT_START", "1"), ("SAY", "error: invalid argument: --bogus")];
    let setup = setup().with_faults(&faults);
    let manager = setup.start().await;
    let replica = manager.phase(Phase::Failed).await;
    assert_eq!((replica.generation, replica.next_attempt_ms), (1, None), "{replica:?}");
    let error = error(&replica);
    assert_eq!(error.cause, "bad_flag");
    assert!(error.remedy.as_ref().unwrap().contains("flags"));
    assert!(error.log_tail.iter().any(|l| l.contains("--bogus")));
    assert_eq!(replica.losses, BTreeMap::from([("bad_flag".to_owned(), 1)]), "it is counted all the same");
    let metrics = manager.metrics().await;
    let lost = r#"poold_engine_losses_total{cause="bad_flag",pool_id="p",replica_id="r0"} 1"#;
    assert!(metrics.contains(lost), "{metrics}");
    assert!(!metrics.contains("poold_engine_restarts_total{"), "nothing is started again: {metrics}");

    setup.preparer.faults(&[]);
    manager.preload().await;
    assert!(manager.ready().await.generation > replica.generation);
    assert_eq!(setup.preparer.calls.load(Ordering::SeqCst), 2, "what failed is prepared anew");
    manager.running.shutdown().await;
}

/// POOLD-READY-001
#[tokio::test]
async fn a_port_that_somebody_else_serves_is_never_published() {
    let setup = setup().with_faults(&[("PORT_STEAL", "1")]);
    let manager = setup.start().await;
    let replica = manager.until(|r| r.failures >= 1).await;
    assert_eq!(error(&replica).cause, "port_taken");
    assert!(replica.generation > 1, "another port was tried before it counted");
    assert!(!manager.metrics().await.contains("handoffs_published_total{"));
    manager.running.shutdown().await;
    assert_eq!(engines_of(setup.runtime()), Vec::<u32>::new());
}

/// POOLD-READY-001
#[tokio::test]
async fn an_engine_that_cannot_complete_one_token_is_never_published() {
    let mut setup = setup().with_faults(&[("MUTE", "1")]);
    setup.timings.canary_timeout = Duration::from_secs(1);
    let manager = setup.start().await;
    let replica = manager.until(|r| r.failures >= 1).await;
    assert_eq!(error(&replica).cause, "canary_failed");
    assert!(
        error(&replica).message.contains("the first thing it was asked: no answer in time"),
        "{replica:?}"
    );
    assert!(!manager.metrics().await.contains("handoffs_published_total{"));
    manager.running.shutdown().await;
}

/// POOLD-READY-001
#[tokio::test]
async fn an_engine_that_makes_no_vector_or_score_is_never_published_by_a_pool_for_them() {
    for kind in [PoolKind::Embedding, PoolKind::Rerank] {
        let mut setup = setup().with_faults(&[("PREFILL_MS", "600000")]);
        setup.pool.kind = kind;
        setup.timings.canary_timeout = Duration::from_secs(1);
        let manager = setup.start().await;
        let replica = manager.until(|r| r.failures >= 1).await;
        assert_eq!(error(&replica).cause, "canary_failed", "{kind:?}: {replica:?}");
        assert!(!manager.metrics().await.contains("handoffs_published_total{"), "{kind:?}");
        manager.running.shutdown().await;
    }
}

#[tokio::test]
async fn an_engine_that_never_listens_is_stopped_when_its_time_is_over() {
    let mut setup = setup().with_faults(&[("NO_BIND", "1")]);
    setup.timings.startup_base = Duration::from_millis(300);
    let manager = setup.start().await;
    let replica = manager.until(|r| r.failures >= 1).await;
    assert_eq!(error(&replica).cause, "startup_timeout");
    manager.running.shutdown().await;
    assert_eq!(engines_of(setup.runtime()), Vec::<u32>::new());
}

#[tokio::test]
async fn a_failed_preparation_is_shown_whole_and_tried_again_when_asked() {
    let setup = setup();
    setup.preparer.failure(Some(not_prepared("no source worked: a: b", false)));
    let manager = setup.start().await;
    let replica = manager.phase(Phase::Failed).await;
    let shown = error(&replica);
    assert_eq!((shown.cause.as_str(), shown.message.as_str()), ("provisioning", "no source worked: a: b"));
    assert_eq!(shown.remedy.as_deref(), Some("do c"));
    assert_eq!(manager.step("p/engine").await, (StepStatus::Failed, "it failed".to_owned()));
    setup.preparer.failure(None);
    manager.preload().await;
    manager.ready().await;
    manager.running.shutdown().await;
}

fn not_prepared(message: &str, may_heal: bool) -> PrepareError {
    PrepareError { message: message.to_owned(), remedy: Some("do c".to_owned()), may_heal }
}

#[tokio::test]
async fn a_preparation_that_may_heal_is_tried_again_by_itself_and_at_once_when_asked() {
    let setup = setup();
    setup.preparer.failure(Some(not_prepared("no source worked:\n  - git: no network", true)));
    let manager = setup.start().await;
    let twice = || setup.preparer.calls.load(Ordering::SeqCst) == 2;
    within(DEADLINE, "tried again by itself", twice).await;
    let replica = manager.until(|r| r.next_attempt_ms.is_some_and(|ms| ms > 200_000)).await;
    assert_eq!(replica.phase, Phase::Backoff);
    assert_eq!(error(&replica).cause, "provisioning");
    let (status, words) = manager.step("p/engine").await;
    assert_eq!(status, StepStatus::Running, "clients take Failed as final");
    assert_eq!(words, "trying again in 300 s: no source worked: - git: no network");

    setup.preparer.failure(None);
    manager.preload().await;
    manager.ready().await;
    assert_eq!(manager.step("p/engine").await.0, StepStatus::Completed);
    manager.running.shutdown().await;
}
