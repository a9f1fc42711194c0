//! The good life: ready, stopped, started again.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use wire::{HandoffState, Phase, PoolView, StepStatus};

use crate::harness::{DEADLINE, client, engines_of, setup};

#[tokio::test]
async fn a_ready_engine_is_published_with_all_that_is_known() {
    let setup = setup();
    let manager = setup.start().await;
    let handoff = manager.ready().await;
    let replica = manager.replica().await;
    assert!(handoff.generation >= 1);
    assert_eq!(handoff.state, HandoffState::Ready);
    assert_eq!(handoff.provisioning_mode, "path");
    assert_eq!((handoff.slots_total, handoff.ctx), (2, Some(512)), "as /props says");
    assert_eq!(handoff.pid, replica.pid);
    assert_eq!(handoff.model.digest, "d".repeat(64));
    assert_eq!(handoff.api_key.as_ref().map(String::len), Some(64));
    assert!(handoff.started_at.unwrap().ends_with('Z'));
    assert!(handoff.url.starts_with("http://127.0.0.1:"));
    assert_eq!((replica.slots_total, replica.failures, replica.last_error), (2, 0, None));

    let steps = manager.pool().await.steps;
    let ids: Vec<_> = steps.iter().map(|s| (s.id.as_str(), s.status)).collect();
    assert_eq!(ids, [("p/engine", StepStatus::Completed), ("p/warmup", StepStatus::Completed)]);
    manager.running.shutdown().await;
}

/// POOLD-LAUNCH-003
#[tokio::test]
async fn the_engine_wants_the_key_that_is_in_the_handoff() {
    let setup = setup();
    let manager = setup.start().await;
    let handoff = manager.ready().await;
    let props = format!("{}/props", handoff.url);
    let client = client();
    let without = client.get(&props).send().await.unwrap();
    assert_eq!(without.status(), 401);
    let with = client.get(&props).bearer_auth(handoff.api_key.unwrap()).send().await.unwrap();
    assert_eq!(with.status(), 200);
    manager.running.shutdown().await;
}

#[tokio::test]
async fn a_stop_leaves_nothing_behind_and_a_preload_starts_again() {
    let setup = setup();
    let manager = setup.start().await;
    let first = manager.ready().await;
    manager.preload().await;
    assert_eq!(manager.ready().await, first, "a preload of what runs changes nothing");

    manager.stop().await;
    let replica = manager.phase(Phase::Stopped).await;
    assert_eq!((replica.pid, replica.url), (None, None));
    assert_eq!(setup.handoff(), None);
    assert_eq!(engines_of(setup.runtime()), Vec::<u32>::new());
    for gone in ["run/p.r0.pid".to_owned(), format!("run/p.r0.{}.key", first.generation)] {
        assert!(!setup.runtime().join(&gone).exists(), "{gone}");
    }

    manager.preload().await;
    let second = manager.ready().await;
    assert!(second.generation > first.generation);
    assert_ne!(second.api_key, first.api_key);
    assert_eq!(setup.preparer.calls.load(Ordering::SeqCst), 1, "nothing is prepared twice");
    manager.running.shutdown().await;
}

/// POOLD-STOP-001
#[tokio::test]
async fn an_engine_that_ignores_term_and_leaves_a_grandchild_is_gone_after_the_grace() {
    let setup = setup().with_faults(&[("IGNORE_TERM", "1"), ("GRANDCHILD", "1")]);
    let manager = setup.start().await;
    manager.ready().await;
    assert_eq!(engines_of(setup.runtime()).len(), 2, "the engine and its grandchild");
    let begun = Instant::now();
    manager.stop().await;
    manager.phase(Phase::Stopped).await;
    let took = begun.elapsed();
    assert!(took >= setup.timings.stop_grace, "the grace was not given: {took:?}");
    // Neither of them ends by itself: whoever waited for one would wait for ever.
    assert!(took < Duration::from_secs(20), "{took:?}");
    assert_eq!(engines_of(setup.runtime()), Vec::<u32>::new());
    manager.running.shutdown().await;
}

#[tokio::test]
async fn an_end_at_once_waits_for_no_engine_that_ignores_term() {
    let mut setup = setup().with_faults(&[("IGNORE_TERM", "1"), ("GRANDCHILD", "1")]);
    setup.timings.stop_grace = Duration::from_mins(1);
    let manager = setup.start().await;
    manager.ready().await;
    let begun = Instant::now();
    manager.running.shutdown_now().await;
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(engines_of(setup.runtime()), Vec::<u32>::new());
    assert_eq!(setup.handoff(), None);
}

/// POOLD-READY-002
#[tokio::test]
async fn loading_is_progress_however_often_it_is_asked() {
    let mut setup = setup().with_faults(&[("LOAD_MS", "1500")]);
    // Were loading a failed probe, three of these would end it long before.
    setup.timings.liveness_timeout = Duration::from_millis(500);
    let manager = setup.start().await;
    manager.until(|r| r.phase == Phase::Starting && r.pid.is_some()).await;
    let steps = manager.pool().await.steps;
    assert_eq!(steps.last().unwrap().status, StepStatus::Running, "{steps:?}");
    assert_eq!(setup.handoff(), None, "nothing is claimed while it loads");
    manager.ready().await;
    assert_eq!(manager.replica().await.failures, 0);
    manager.running.shutdown().await;
}

#[tokio::test]
async fn a_graceful_end_stops_the_engines() {
    let setup = setup();
    let manager = setup.start().await;
    manager.ready().await;
    manager.running.shutdown().await;
    assert_eq!(engines_of(setup.runtime()), Vec::<u32>::new());
    assert_eq!(setup.handoff(), None);
}

/// POOLD-LAUNCH-004
#[tokio::test]
async fn at_most_so_many_engines_load_at_once_and_all_of_them_in_the_end() {
    for at_once in [1, 3] {
        let mut setup = setup().with_faults(&[("LOAD_MS", "500")]);
        (setup.pool.replicas, setup.loading_at_once) = (5, at_once);
        let manager = setup.start().await;
        let end = Instant::now() + DEADLINE;
        loop {
            let replicas = manager.pool().await.replicas;
            let loading = replicas.iter().filter(|r| r.phase == Phase::Starting && r.pid.is_some()).count();
            assert!(loading <= at_once as usize, "{loading} load at once: {replicas:#?}");
            if replicas.iter().all(|r| r.phase == Phase::Ready) {
                break;
            }
            assert!(Instant::now() < end, "not all came: {replicas:#?}");
        }
        manager.running.shutdown().await;
    }
}

/// POOLD-LAUNCH-004
#[tokio::test]
async fn as_many_engines_load_as_may_and_the_others_say_that_they_wait() {
    let mut setup = setup().with_faults(&[("LOAD_MS", "600000")]);
    (setup.pool.replicas, setup.loading_at_once) = (5, 3);
    let manager = setup.start().await;
    let is = |pool: &PoolView| {
        let loading = pool.replicas.iter().filter(|r| r.pid.is_some()).count();
        let waiting =
            pool.steps.iter().filter(|step| step.description.contains("waits for its turn")).count();
        (loading, waiting) == (3, 2)
    };
    manager.until_pool(is).await;
    manager.running.shutdown().await;
}
