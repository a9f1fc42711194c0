//! Stopped, mute, stuck and slow engines, told apart by what they do and not by what they say.

use std::time::Duration;

use rustix::process::Signal;
use wire::{Handoff, Phase};

use crate::harness::{Setup, client, engines_of, error, setup, signal};

/// One generation, whose answer nobody may ever get.
async fn generate(handoff: &Handoff, tokens: u32) -> Result<serde_json::Value, reqwest::Error> {
    let request = client()
        .post(format!("{}/completion", handoff.url))
        .bearer_auth(handoff.api_key.as_ref().unwrap())
        .timeout(Duration::from_mins(1))
        .json(
            &serde_json::json!({ "prompt": "so many words to read", "n_predict": tokens, "stream": false }),
        );
    request.send().await?.json().await
}

/// Limits that a test can wait for; nothing is granted for a prompt unless the test says so.
fn impatient() -> Setup {
    let mut setup = setup();
    setup.timings.progress_period = Duration::from_millis(50);
    setup.timings.progress.token = Duration::from_secs(1);
    setup.timings.progress.prompt_token = Duration::ZERO;
    setup
}

/// POOLD-PROBE-004
#[tokio::test]
async fn an_engine_that_was_stopped_by_a_signal_is_replaced_and_called_that() {
    let mut setup = setup();
    setup.timings.liveness_timeout = Duration::from_millis(500);
    let manager = setup.start().await;
    let first = manager.ready().await;
    signal(first.pid.unwrap(), Signal::STOP);
    let replica = manager.until(|r| r.phase == Phase::Ready && r.generation > first.generation).await;
    assert_eq!(error(&replica).cause, "suspended");
    assert!(error(&replica).message.contains("stopped by a signal"), "{replica:?}");
    assert_eq!(engines_of(setup.runtime()), [replica.pid.unwrap()], "the stopped one is gone");
    manager.running.shutdown().await;
}

/// POOLD-PROBE-003, POOLD-RESTART-004
#[tokio::test]
async fn an_engine_that_never_generates_for_a_client_is_mute_and_counts_twice() {
    let mut setup = impatient().with_faults(&[("MUTE_AFTER", "1")]);
    setup.timings.restart.open_after = 6;
    let manager = setup.start().await;
    let mut last = 0;
    for lives_before in 0..3 {
        let replica = manager.until(|r| r.phase == Phase::Ready && r.generation > last).await;
        assert_eq!(replica.failures, 2 * lives_before);
        last = replica.generation;
        let answer = generate(&manager.ready().await, 8).await;
        assert!(answer.is_err(), "it was killed: {answer:?}");
    }
    let replica = manager.phase(Phase::BreakerOpen).await;
    assert_eq!((replica.generation, replica.failures), (last, 6), "three lives open the breaker");
    let error = error(&replica);
    assert_eq!(error.cause, "mute");
    assert!(error.message.contains("generated nothing") && error.message.contains("never had"), "{error:?}");
    assert!(error.remedy.as_ref().unwrap().contains("does not generate"));
    manager.running.shutdown().await;
}

/// POOLD-PROBE-003
#[tokio::test]
async fn an_engine_that_stops_in_the_middle_is_stalled_and_counts_once() {
    let setup = impatient().with_faults(&[("HANG_AFTER", "3")]);
    let manager = setup.start().await;
    let first = manager.ready().await;
    let answer = generate(&first, 8).await;
    assert!(answer.is_err(), "it was killed: {answer:?}");
    let replica = manager.until(|r| r.phase == Phase::Ready && r.generation > first.generation).await;
    assert_eq!(error(&replica).cause, "stalled");
    assert_eq!(replica.failures, 1);
    manager.running.shutdown().await;
}

/// POOLD-PROBE-003
#[tokio::test]
async fn an_engine_that_does_not_show_its_slots_is_not_believed_to_work() {
    let setup = impatient().with_faults(&[("SLOTS_SILENT", "1")]);
    let manager = setup.start().await;
    let replica = manager.until(|r| r.failures >= 2).await;
    assert_eq!(error(&replica).cause, "mute");
    assert!(error(&replica).message.contains("did not show its slots"), "{replica:?}");
    manager.running.shutdown().await;
}

/// POOLD-PROBE-001, POOLD-PROBE-002
#[tokio::test]
async fn a_slow_engine_with_a_long_prefill_is_left_alone() {
    let mut setup = impatient().with_faults(&[("PREFILL_MS", "4500"), ("TOKEN_MS", "600")]);
    setup.timings.progress.token = Duration::from_secs(3);
    // Five words are six tokens or so.
    setup.timings.progress.prompt_token = Duration::from_secs(1);
    let manager = setup.start().await;
    let handoff = manager.ready().await;
    let answer = generate(&handoff, 5).await.unwrap();
    assert_eq!(answer["tokens_predicted"], 5, "{answer}");
    let slots = client().get(format!("{}/slots", handoff.url)).bearer_auth(handoff.api_key.as_ref().unwrap());
    let slots: Vec<serde_json::Value> = slots.send().await.unwrap().json().await.unwrap();
    let tasks = slots.iter().filter_map(|slot| slot["id_task"].as_u64()).max();
    assert_eq!(tasks, Some(2), "the canary before the handoff, and ours: {slots:?}");
    let replica = manager.replica().await;
    assert_eq!((replica.generation, replica.failures), (handoff.generation, 0));
    manager.running.shutdown().await;
}
