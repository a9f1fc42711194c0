//! Managers come and go: one at a time, and engines survive them when they should.

use pool_managerd::{App, AppConfig, StartError};
use rustix::process::Signal;
use wire::config::OnExit;

use crate::harness::{engines_of, setup, signal};

/// POOLD-LOCK-001
#[tokio::test]
async fn a_second_manager_is_refused_and_told_who_the_first_is() {
    let setup = setup();
    let manager = setup.start().await;
    let refused = setup.try_start().await.unwrap_err();
    assert!(matches!(refused, StartError::Locked { who: None, .. }));
    assert!(refused.to_string().contains(&std::process::id().to_string()), "{refused}");
    assert!(refused.to_string().contains("another pool-managerd"), "{refused}");
    manager.running.shutdown().await;

    let who = "orchestratord at http://127.0.0.1:8080";
    let named = AppConfig { holder: Some(who.to_owned()), ..setup.config() };
    let running = App::start(named).await.unwrap();
    let refused = setup.try_start().await.unwrap_err().to_string();
    assert!(refused.contains(&format!("in use by {who} (PID {})", std::process::id())), "{refused}");
    running.shutdown().await;
    setup.start().await.running.shutdown().await;
}

/// POOLD-SERVICE-002
#[tokio::test]
async fn a_manager_that_ends_before_it_came_to_an_engine_does_with_it_as_its_pool_says() {
    for (says, stays) in [(OnExit::Keep, true), (OnExit::Stop, false)] {
        let mut setup = setup();
        setup.pool.on_exit = OnExit::Keep;
        let manager = setup.start().await;
        let engine = [manager.ready().await.pid.unwrap()];
        manager.running.shutdown().await;
        assert_eq!(engines_of(setup.runtime()), engine);
        setup.pool.on_exit = says;
        // On one thread: nothing that was started has had its turn when it is to end.
        setup.start().await.running.shutdown().await;
        let left = engines_of(setup.runtime());
        assert_eq!(left, if stays { &engine[..] } else { &[] }, "{says:?}");
    }
}

#[tokio::test]
async fn an_engine_that_was_kept_is_adopted_with_its_generation_and_key() {
    let mut setup = setup();
    setup.pool.on_exit = OnExit::Keep;
    let manager = setup.start().await;
    let before = manager.ready().await;
    manager.running.shutdown().await;
    assert_eq!(setup.handoff(), Some(before.clone()), "a kept engine stays published");

    let manager = setup.start().await;
    assert_eq!(manager.ready().await, before);
    assert!(manager.metrics().await.contains(r#"poold_adoptions_total{pool_id="p",replica_id="r0"} 1"#));

    // It is watched like any other.
    signal(before.pid.unwrap(), Signal::KILL);
    let after = manager.until(|r| r.phase == wire::Phase::Ready && r.generation > before.generation).await;
    assert_eq!(after.last_error.unwrap().cause, "unknown", "nobody but its parent could know");
    manager.stop().await;
    manager.phase(wire::Phase::Stopped).await;
    assert_eq!(engines_of(setup.runtime()), Vec::<u32>::new());
    manager.running.shutdown().await;
}

#[tokio::test]
async fn an_end_at_once_keeps_what_is_to_be_kept() {
    let mut setup = setup();
    setup.pool.on_exit = OnExit::Keep;
    let manager = setup.start().await;
    let before = manager.ready().await;
    manager.running.shutdown_now().await;
    assert_eq!(engines_of(setup.runtime()), [before.pid.unwrap()]);
    assert_eq!(setup.handoff(), Some(before));
}

#[tokio::test]
async fn an_engine_of_another_configuration_is_replaced() {
    let mut setup = setup();
    setup.pool.on_exit = OnExit::Keep;
    let manager = setup.start().await;
    let before = manager.ready().await;
    manager.running.shutdown().await;

    setup.pool.ctx = 77;
    setup.preparer.faults(&[("TOKEN_MS", "1")]);
    let manager = setup.start().await;
    let after = manager.until(|r| r.phase == wire::Phase::Ready && r.generation > before.generation).await;
    assert_ne!(after.pid, before.pid);
    assert_eq!(engines_of(setup.runtime()), [after.pid.unwrap()]);
    manager.stop().await;
    manager.phase(wire::Phase::Stopped).await;
    manager.running.shutdown().await;
}

/// POOLD-LAUNCH-002
#[tokio::test]
async fn a_lost_record_never_leads_to_two_engines() {
    let mut setup = setup();
    setup.pool.on_exit = OnExit::Keep;
    for damage in [None, Some("{\"schema_version\": 1, \"pool"), Some("")] {
        let manager = setup.start().await;
        let before = manager.ready().await;
        manager.running.shutdown().await;
        let record = setup.runtime().join("run/p.r0.pid");
        match damage {
            None => std::fs::remove_file(&record).unwrap(),
            Some(text) => std::fs::write(&record, text).unwrap(),
        }
        let manager = setup.start().await;
        let after = manager.ready().await;
        assert_ne!(after.pid, before.pid, "{damage:?}");
        assert!(after.generation > before.generation);
        assert_eq!(engines_of(setup.runtime()), [after.pid.unwrap()], "{damage:?}");
        manager.stop().await;
        manager.phase(wire::Phase::Stopped).await;
        manager.running.shutdown().await;
    }
}

/// POOLD-LOSS-001
#[tokio::test]
async fn an_engine_without_record_and_place_is_ended_and_its_claim_withdrawn() {
    let mut setup = setup();
    (setup.pool.on_exit, setup.pool.replicas) = (OnExit::Keep, 2);
    for lost in ["run/p.r1.pid", "run/p.r1.generation"] {
        setup.pool.replicas = 2;
        let manager = setup.start().await;
        manager.until_all(wire::Phase::Ready).await;
        let first = manager.ready().await;
        manager.running.shutdown().await;
        std::fs::write(setup.runtime().join("run/p.r1.pid"), "{\"schema_ver").unwrap();
        std::fs::remove_file(setup.runtime().join(lost)).unwrap();
        setup.pool.replicas = 1;
        let manager = setup.start().await;
        assert_eq!(manager.ready().await, first, "{lost}");
        assert_eq!(engines_of(setup.runtime()), [first.pid.unwrap()], "{lost}");
        assert!(!setup.runtime().join("engines/p.r1.json").exists(), "{lost}: a claim nobody keeps");
        manager.running.shutdown().await;
    }
    let manager = setup.start().await;
    manager.stop().await;
    manager.phase(wire::Phase::Stopped).await;
    manager.running.shutdown().await;
}

#[tokio::test]
async fn a_stranger_with_a_recorded_pid_is_left_alone() {
    let mut setup = setup();
    setup.pool.on_exit = OnExit::Keep;
    let manager = setup.start().await;
    let before = manager.ready().await;
    manager.running.shutdown().await;
    signal(before.pid.unwrap(), Signal::KILL);

    // The record now names a process that is not the engine.
    let mut stranger = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    let record = setup.runtime().join("run/p.r0.pid");
    let text = std::fs::read_to_string(&record).unwrap();
    let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
    value["identity"]["pid"] = stranger.id().into();
    std::fs::write(&record, value.to_string()).unwrap();
    let manager = setup.start().await;
    let after = manager.ready().await;
    assert!(after.generation > before.generation);
    assert_eq!(stranger.try_wait().unwrap(), None, "the stranger lives");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    manager.stop().await;
    manager.phase(wire::Phase::Stopped).await;
    manager.running.shutdown().await;
}
