//! Reload: a new engine takes the place of one that serves, or does not and changes nothing.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use wire::config::{Config, PoolConfig};
use wire::{ErrorCode, OperationState, OperationView, Phase, PoolId, PoolView};

use crate::harness::{DEADLINE, Generation, Manager, Setup, engines_of, setup, within};
use pool_managerd::PrepareError;

const SLOW: &[(&str, &str)] = &[("TOKEN_MS", "10")];

/// A pool that serves with generation 1, whose next engine has the faults.
async fn serving(setup: &Setup, next: &[(&str, &str)]) -> Manager {
    let manager = setup.start().await;
    manager.ready().await;
    setup.preparer.faults(next);
    manager
}

async fn reloaded(manager: &Manager) -> OperationView {
    let reload = manager.begin("reload", "").await;
    manager.ended(&reload).await
}

/// POOLD-RELOAD-001
#[tokio::test]
async fn a_new_engine_takes_over_while_the_old_one_finishes_what_it_has() {
    let setup = setup().with_faults(SLOW);
    let manager = serving(&setup, SLOW).await;
    let old = setup.handoff().unwrap();
    let generation = Generation::begin(&old, 300).await;
    let ended = reloaded(&manager).await;
    assert_eq!(ended.state, OperationState::Succeeded, "{ended:#?}");
    assert!(generation.runs(), "it was to be exchanged while something runs");
    let new = manager.ready().await;
    assert!(new.generation > old.generation, "{new:?}");
    assert_ne!((&new.url, &new.api_key), (&old.url, &old.api_key));
    assert_eq!(engines_of(setup.runtime()).len(), 2, "both run");
    assert!(generation.was_whole().await, "what ran was cut off");
    let only_new = || engines_of(setup.runtime()) == [new.pid.unwrap()];
    within(Duration::from_secs(20), "the old engine ends", only_new).await;
    let key = format!("run/p.r0.{}.key", old.generation);
    let gone = [&key, "run/p.r0.next", "run/llamacpp-p.r0.next.log"].map(|file| setup.runtime().join(file));
    within(Duration::from_secs(20), "its files are gone", || !gone.iter().any(|file| file.exists())).await;
    assert_eq!(manager.ready().await, new, "the claim of the new engine stays");
    manager.running.shutdown().await;
    assert_eq!(engines_of(setup.runtime()), Vec::<u32>::new());
}

/// POOLD-RELOAD-004
#[tokio::test]
async fn an_engine_that_exits_stays_unready_or_fails_its_completion_changes_nothing() {
    for (faults, cause, words) in [
        (&[("EXIT_AT_START", "3"), ("SAY", "no such thing")][..], "exit", "code 3"),
        (&[("NO_BIND", "1")], "startup_timeout", "ready"),
        (&[("MUTE", "1")], "canary_failed", "no answer in time"),
    ] {
        let mut setup = setup();
        setup.timings.startup_base = Duration::from_secs(2);
        setup.timings.canary_timeout = Duration::from_secs(2);
        let manager = serving(&setup, faults).await;
        let before = manager.ready().await;
        let ended = reloaded(&manager).await;
        assert_eq!(ended.state, OperationState::RolledBack, "{faults:?}: {ended:#?}");
        let outcome = ended.outcome.unwrap();
        let error = outcome.error.expect("the reason is kept");
        assert_eq!(error.cause, cause, "{error:#?}");
        assert!(error.message.contains(words), "{error:#?}");
        assert!(outcome.message.ends_with("; the old one serves"), "{}", outcome.message);
        assert_eq!(manager.ready().await, before, "the old engine was touched");
        assert_eq!(engines_of(setup.runtime()), [before.pid.unwrap()]);
        setup.preparer.faults(&[]);
        assert_eq!(reloaded(&manager).await.state, OperationState::Succeeded, "and the next may succeed");
        manager.running.shutdown().await;
    }
}

/// POOLD-RELOAD-004
#[tokio::test]
async fn what_cannot_be_prepared_is_not_taken() {
    let setup = setup();
    let manager = serving(&setup, &[]).await;
    let before = manager.ready().await;
    let message = "sha256 mismatch".to_owned();
    setup.preparer.failure(Some(PrepareError { message, remedy: None, may_heal: true }));
    let ended = reloaded(&manager).await;
    assert_eq!(ended.state, OperationState::RolledBack);
    let error = ended.outcome.unwrap().error.unwrap();
    assert_eq!((error.cause.as_str(), error.message.as_str()), ("provisioning", "sha256 mismatch"));
    assert_eq!(manager.ready().await, before);
    manager.running.shutdown().await;
}

/// POOLD-RELOAD-002, POOLD-VIEW-001
#[tokio::test]
async fn without_memory_for_both_the_old_engine_ends_first_and_comes_back_if_the_new_one_fails() {
    let mut setup = setup().with_faults(SLOW);
    setup.memory = || Some(0);
    let manager = serving(&setup, &[("EXIT_AT_START", "3")]).await;
    let old = manager.ready().await;
    let generation = Generation::begin(&old, 100).await;
    let reload = manager.begin("reload", "").await;
    manager.phase(Phase::Draining).await;
    assert_eq!(engines_of(setup.runtime()), [old.pid.unwrap()], "one at a time");
    assert!(generation.was_whole().await, "what ran was cut off");
    setup.preparer.faults(SLOW);
    let ended = manager.ended(&reload).await;
    assert_eq!(ended.state, OperationState::RolledBack, "{ended:#?}");
    assert_eq!(ended.outcome.unwrap().error.unwrap().cause, "exit");
    let back = manager.ready().await;
    assert!(
        back.generation > old.generation + 1,
        "the old one, the one that failed, the old one again: {back:?}"
    );
    assert_eq!(manager.replica().await.losses.get("exit"), Some(&1));
    let restarted = r#"poold_engine_restarts_total{cause="exit",pool_id="p",replica_id="r0"} 1"#;
    assert!(manager.metrics().await.contains(restarted), "what served before was started for it");

    let ended = reloaded(&manager).await;
    assert_eq!(ended.state, OperationState::Succeeded, "{ended:#?}");
    let new = manager.ready().await;
    assert!(new.generation > back.generation);
    assert_eq!(engines_of(setup.runtime()), [new.pid.unwrap()]);
    manager.running.shutdown().await;
}

/// POOLD-RELOAD-005
#[tokio::test]
async fn a_caller_names_no_path_and_no_engine_that_is_not_in_the_store() {
    let setup = setup();
    let manager = serving(&setup, &[]).await;
    for (body, param) in [
        (r#"{"model": "/etc/passwd"}"#, "model"),
        (r#"{"model": "file:/etc/passwd"}"#, "model"),
        (r#"{"engine_ref": "/bin/sh"}"#, "engine_ref"),
    ] {
        let (status, answer) = manager.ask("reload", body).await;
        assert_eq!((status, &answer["error"]["param"]), (400, &param.into()), "{body}: {answer}");
    }
    let (status, answer) = manager.ask("reload", r#"{"model": "hf:theirs/model:Q4_K_M"}"#).await;
    let error = &answer["error"];
    assert_eq!((status, &error["code"]), (422, &ErrorCode::UntrustedArtifact.as_str().into()), "{answer}");
    assert_eq!((&error["param"], &error["retriable"]), (&"model".into(), &false.into()));
    assert!(error["message"].as_str().unwrap().contains("it is not from hf:ours/"), "{answer}");
    let (status, answer) = manager.ask("reload", r#"{"flags": []}"#).await;
    assert_eq!((status, &answer["error"]["code"]), (400, &ErrorCode::InvalidParams.as_str().into()));
    manager.running.shutdown().await;
}

/// POOLD-RELOAD-003
#[tokio::test]
async fn a_shutdown_in_the_middle_leaves_no_engine() {
    let setup = setup();
    let manager = serving(&setup, &[("LOAD_MS", "60000")]).await;
    manager.begin("reload", "").await;
    within(Duration::from_secs(20), "both run", || engines_of(setup.runtime()).len() == 2).await;
    let begun = Instant::now();
    manager.running.shutdown().await;
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert_eq!(engines_of(setup.runtime()), Vec::<u32>::new());
}

/// POOLD-RELOAD-003
#[tokio::test]
async fn the_old_engine_may_be_lost_meanwhile() {
    let setup = setup();
    let manager = serving(&setup, &[("LOAD_MS", "300")]).await;
    let reload = manager.begin("reload", "").await;
    within(Duration::from_secs(20), "both run", || engines_of(setup.runtime()).len() == 2).await;
    let old = setup.handoff().unwrap().pid.unwrap();
    crate::harness::signal(old, rustix::process::Signal::KILL);
    assert_eq!(manager.ended(&reload).await.state, OperationState::Succeeded);
    let new = manager.ready().await;
    let only_new = || engines_of(setup.runtime()) == [new.pid.unwrap()];
    within(Duration::from_secs(20), "one engine is left", only_new).await;
    manager.running.shutdown().await;
}

/// POOLD-RELOAD-003
#[tokio::test]
async fn the_next_manager_adopts_the_engine_that_took_over() {
    let mut setup = setup();
    setup.pool.on_exit = wire::config::OnExit::Keep;
    let manager = serving(&setup, &[]).await;
    assert_eq!(reloaded(&manager).await.state, OperationState::Succeeded);
    let new = manager.ready().await;
    manager.running.shutdown().await;
    assert_eq!(engines_of(setup.runtime()), [new.pid.unwrap()], "the old one has ended, the new one is kept");
    let next = setup.start().await;
    assert_eq!(next.ready().await, new, "the same engine with the same claim");
    next.running.shutdown().await;
}

/// POOLD-RELOAD-004
#[tokio::test]
async fn of_several_replicas_those_that_went_over_go_back() {
    let mut setup = setup();
    setup.pool.replicas = 2;
    let manager = setup.start().await;
    let all_ready = async || manager.pool().await.replicas.iter().all(|r| r.phase == Phase::Ready);
    until(&all_ready).await;
    let before = manager.pool().await.replicas;
    setup.preparer.fail_after(1);
    let ended = reloaded(&manager).await;
    assert_eq!(ended.state, OperationState::RolledBack, "{ended:#?}");
    assert_eq!(ended.progress.replicas_total, 2);
    until(&all_ready).await;
    let after = manager.pool().await.replicas;
    assert!(after[0].generation > before[0].generation + 1, "the first went over and back: {after:#?}");
    assert_eq!(after[1].generation, before[1].generation, "the second never moved");
    let two = || engines_of(setup.runtime()).len() == 2;
    within(Duration::from_secs(20), "one engine for each replica", two).await;
    manager.running.shutdown().await;
}

/// POOLD-OPS-003, POOLD-RELOAD-003
#[tokio::test]
async fn a_reload_is_called_off_by_a_stop_or_a_drain_and_the_pool_runs_what_it_ran_before() {
    for what in ["stop", "drain"] {
        let mut setup = setup();
        setup.pool.replicas = 2;
        let manager = setup.start().await;
        manager.until_all(Phase::Ready).await;
        let before = manager.pool().await;
        // The first replica goes over; the engine that is to take over from the second's never gets ready.
        setup.preparer.faults_after(1, &[("LOAD_MS", "600000")]);
        let reload = manager.begin("reload", r#"{"model": "hf:ours/other:Q4_K_M"}"#).await;
        let half_done = |pool: &PoolView| pool.replicas[0].generation > before.replicas[0].generation;
        manager.until_pool(half_done).await;
        within(DEADLINE, "the second is asked", || setup.preparer.calls.load(Ordering::SeqCst) >= 4).await;
        let ends = manager.begin(what, "").await;
        let called_off = manager.ended(&reload).await;
        assert_eq!(called_off.state, OperationState::Failed, "{called_off:#?}");
        assert_eq!(called_off.outcome.unwrap().message, format!("called off by {what}"));
        assert_eq!(manager.ended(&ends).await.state, OperationState::Succeeded);
        assert_eq!(engines_of(setup.runtime()), Vec::<u32>::new(), "{what}");
        setup.preparer.faults(&[]);
        let undrain = manager.begin("undrain", "").await;
        assert_eq!(manager.ended(&undrain).await.state, OperationState::Succeeded);
        let after = manager.pool().await;
        assert_eq!(after.model_ref, before.model_ref, "{what}");
        let asked = setup.preparer.asked.lock().unwrap().clone().unwrap();
        assert_eq!(asked.model, "builtin:stub", "{what}: the one that went over goes back");
        manager.running.shutdown().await;
    }
}

async fn until(holds: impl AsyncFn() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !holds().await {
        assert!(Instant::now() < end, "not within 30 s");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// POOLD-LAUNCH-004
#[tokio::test]
async fn an_engine_that_shall_take_over_waits_for_its_turn_to_load_as_any_other() {
    let mut setup = setup();
    setup.loading_at_once = 1;
    let manager = serving(&setup, &[("LOAD_MS", "600000")]).await;
    let before = manager.ready().await;
    let configure = |pools: Vec<PoolConfig>| {
        manager.running.configure(&Config { pools, ..Config::default() }).unwrap();
    };
    configure(vec![
        setup.pool.clone(),
        PoolConfig { id: PoolId::try_new("q").unwrap(), ..setup.pool.clone() },
    ]);
    manager.until_pools(|pools| pools.get(1).is_some_and(|q| q.replicas[0].pid.is_some())).await;
    setup.preparer.faults(&[]);
    let reload = manager.begin("reload", "").await;
    let waits = |pool: &PoolView| {
        pool.id == setup.pool.id
            && pool.steps.iter().any(|step| step.description.contains("waits for its turn"))
    };
    manager.until_pool(waits).await;
    assert_eq!(engines_of(setup.runtime()).len(), 2, "the one that serves and the one that loads");
    assert_eq!(manager.ready().await, before);
    configure(vec![setup.pool.clone()]);
    assert_eq!(manager.ended(&reload).await.state, OperationState::Succeeded);
    // Not just the next one: a life whose port somebody else was quicker to take has a number, too.
    assert!(manager.ready().await.generation > before.generation);
    manager.running.shutdown().await;
}
