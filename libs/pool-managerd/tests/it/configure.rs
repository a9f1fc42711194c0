//! A configuration that changes while the manager runs: only what changed moves.

use std::sync::atomic::Ordering;
use std::time::Duration;

use wire::config::{Config, OnExit, PoolConfig, PoolKind};
use wire::operation::OperationList;
use wire::{OperationKind, OperationState, OperationView, Phase, PoolId};

use crate::harness::{Generation, Manager, Setup, engines_of, setup, within};

const SLOW: &[(&str, &str)] = &[("TOKEN_MS", "10")];
const SOON: Duration = Duration::from_secs(20);

fn config(pools: &[&PoolConfig]) -> Config {
    Config { pools: pools.iter().map(|pool| (*pool).clone()).collect(), ..Config::default() }
}

/// Follows a configuration; what it comes to, in words.
fn configure(manager: &Manager, pools: &[&PoolConfig]) -> Vec<String> {
    manager.running.configure(&config(pools)).unwrap().iter().map(ToString::to_string).collect()
}

/// The last operation that a configuration has begun, once so many have.
async fn configured(manager: &Manager, nth: usize) -> OperationView {
    let end = std::time::Instant::now() + SOON;
    loop {
        let request = manager.request("GET", "/v2/operations").bearer_auth(manager.running.token()).send();
        let list: OperationList = request.await.unwrap().json().await.unwrap();
        let ours: Vec<_> =
            list.operations.into_iter().filter(|o| o.kind == OperationKind::Configure).collect();
        if ours.len() >= nth {
            return manager.ended(&ours[0].id).await;
        }
        assert!(std::time::Instant::now() < end, "never began");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn other(setup: &Setup, id: &str) -> PoolConfig {
    PoolConfig { id: PoolId::try_new(id).unwrap(), aliases: vec![], ..setup.pool.clone() }
}

/// POOLD-CONFIG-001
#[tokio::test]
async fn names_and_what_an_end_does_change_without_any_engine() {
    let setup = setup();
    let manager = setup.start().await;
    let before = manager.ready().await;
    assert_eq!(configure(&manager, &[&setup.pool]), Vec::<String>::new());
    let mut pool = setup.pool.clone();
    (pool.aliases, pool.on_exit) = (vec!["poet".to_owned()], OnExit::Keep);
    assert_eq!(configure(&manager, &[&pool]), ["p: route only (aliases, on_exit)"]);
    manager.until_pool(|view| view.aliases == ["poet"]).await;
    assert_eq!(manager.ready().await, before);
    let calls = setup.preparer.calls.load(Ordering::SeqCst);
    manager.running.shutdown().await;
    assert_eq!(engines_of(setup.runtime()), [before.pid.unwrap()], "it is kept, as it says now");
    assert_eq!(calls, 1, "nothing was prepared for it");
}

/// POOLD-CONFIG-001, POOLD-CONFIG-003
#[tokio::test]
async fn what_an_engine_knows_of_goes_over_while_the_old_one_finishes_and_other_pools_stay() {
    let setup = setup().with_faults(SLOW);
    let manager = setup.start().await;
    let still = other(&setup, "q");
    assert_eq!(configure(&manager, &[&setup.pool, &still]), ["q: added"]);
    manager.until_pools(|pools| pools.len() == 2 && pools[1].replicas[0].phase == Phase::Ready).await;
    let (old, pid) = (manager.ready().await, manager.pools().await[1].replicas[0].pid);
    let generation = Generation::begin(&old, 200).await;
    let pool = PoolConfig { ctx: 4096, ..setup.pool.clone() };
    assert_eq!(configure(&manager, &[&pool, &still]), ["p: rolling (ctx)"]);
    let ended = configured(&manager, 1).await;
    assert_eq!(ended.state, OperationState::Succeeded, "{ended:#?}");
    assert_eq!(ended.outcome.unwrap().message, "rolling (ctx)");
    let new = manager.ready().await;
    assert!(new.generation > old.generation, "{new:?}");
    assert!(generation.was_whole().await, "what ran was cut off");
    assert_eq!(manager.pools().await[1].replicas[0].pid, pid, "the other pool's engine was touched");
    let two = || engines_of(setup.runtime()).len() == 2;
    within(SOON, "one engine for each pool", two).await;
    manager.running.shutdown().await;
}

/// POOLD-CONFIG-002
#[tokio::test]
async fn an_engine_that_does_not_serve_leaves_the_old_one_and_the_same_file_is_tried_again() {
    let setup = setup();
    let manager = setup.start().await;
    let before = manager.ready().await;
    setup.preparer.faults(&[("EXIT_AT_START", "3")]);
    let pool = PoolConfig { ctx: 4096, aliases: vec!["poet".to_owned()], ..setup.pool.clone() };
    configure(&manager, &[&pool]);
    let ended = configured(&manager, 1).await;
    assert_eq!(ended.state, OperationState::RolledBack, "{ended:#?}");
    assert_eq!(ended.outcome.unwrap().error.unwrap().cause, "exit");
    assert_eq!(manager.ready().await, before);
    assert_eq!(manager.pool().await.aliases, ["poet"], "what needs no engine is followed");
    setup.preparer.faults(&[]);
    assert_eq!(configure(&manager, &[&pool]), ["p: rolling (ctx)"]);
    assert_eq!(configured(&manager, 2).await.state, OperationState::Succeeded);
    assert_eq!(configure(&manager, &[&pool]), Vec::<String>::new());
    manager.running.shutdown().await;
}

/// POOLD-CONFIG-002
#[tokio::test]
async fn a_pool_that_cannot_run_is_tried_with_what_is_corrected() {
    let setup = setup().with_faults(&[("EXIT_AT_START", "1"), ("SAY", "error: invalid argument: --x")]);
    let manager = setup.start().await;
    manager.phase(Phase::Failed).await;
    setup.preparer.faults(&[]);
    let pool = PoolConfig { ctx: 4096, ..setup.pool.clone() };
    configure(&manager, &[&pool]);
    manager.ready().await;
    let ended = configured(&manager, 1).await;
    assert_eq!(ended.state, OperationState::Succeeded, "{ended:#?}");

    setup.preparer.faults(&[("EXIT_AT_START", "1"), ("SAY", "error: invalid argument: --y")]);
    manager.stop().await;
    manager.phase(Phase::Stopped).await;
    let worse = PoolConfig { ctx: 8192, ..setup.pool.clone() };
    configure(&manager, &[&worse]);
    assert_eq!(configured(&manager, 2).await.state, OperationState::Succeeded, "it is stopped and stays so");
    manager.preload().await;
    manager.phase(Phase::Failed).await;
    manager.running.shutdown().await;
}

/// POOLD-CONFIG-001
#[tokio::test]
async fn replicas_come_and_go_without_the_others() {
    let setup = setup();
    let manager = setup.start().await;
    let first = manager.ready().await;
    let three = PoolConfig { replicas: 3, ..setup.pool.clone() };
    assert_eq!(configure(&manager, &[&three]), ["p: 1 to 3 replicas (replicas)"]);
    let ended = configured(&manager, 1).await;
    assert_eq!((ended.state, ended.progress.replicas_total), (OperationState::Succeeded, 3), "{ended:#?}");
    assert_eq!(engines_of(setup.runtime()).len(), 3);
    configure(&manager, &[&setup.pool]);
    let ended = configured(&manager, 2).await;
    assert_eq!(ended.state, OperationState::Succeeded, "{ended:#?}");
    assert_eq!(manager.pool().await.replicas.len(), 1);
    assert_eq!(manager.ready().await, first);
    assert_eq!(engines_of(setup.runtime()), [first.pid.unwrap()]);
    assert!(!setup.runtime().join("engines/p.r2.json").exists());
    manager.running.shutdown().await;
}

/// POOLD-CONFIG-001
#[tokio::test]
async fn a_pool_that_is_named_no_more_finishes_what_it_has_and_is_forgotten() {
    let setup = setup().with_faults(SLOW);
    let manager = setup.start().await;
    let old = manager.ready().await;
    let generation = Generation::begin(&old, 50).await;
    let q = other(&setup, "q");
    assert_eq!(configure(&manager, &[&q]), ["q: added", "p: removed"]);
    manager.until_pools(|pools| pools.len() == 1 && pools[0].id.as_str() == "q").await;
    assert!(generation.was_whole().await, "what ran was cut off");
    assert!(!setup.runtime().join("engines/p.r0.json").exists());
    // And back, as another life.
    configure(&manager, &[&setup.pool, &q]);
    manager.until_pools(|pools| pools.len() == 2 && pools[0].id.as_str() == "p").await;
    assert!(manager.ready().await.generation > old.generation);
    manager.running.shutdown().await;
    assert_eq!(engines_of(setup.runtime()), Vec::<u32>::new());
}

/// POOLD-CONFIG-003
#[tokio::test]
async fn the_newest_configuration_wins_also_over_a_removal_that_is_under_way() {
    let setup = setup().with_faults(SLOW);
    let manager = setup.start().await;
    let old = manager.ready().await;
    let generation = Generation::begin(&old, 200).await;
    configure(&manager, &[]);
    manager.phase(Phase::Draining).await;
    configure(&manager, &[&setup.pool]);
    assert_eq!(manager.ready().await.generation, old.generation, "the same engine serves on");
    assert!(generation.runs(), "the removal was to be under way");
    assert!(configured(&manager, 1).await.outcome.unwrap().message.contains("names the pool again"));

    let [a, b, c] = [3000, 4000, 5000].map(|ctx| PoolConfig { ctx, ..setup.pool.clone() });
    for pool in [&a, &b, &c] {
        configure(&manager, &[pool]);
    }
    assert!(generation.was_whole().await);
    manager.until(|_| configure(&manager, &[&c]).is_empty()).await;
    let two = || engines_of(setup.runtime()).len() == 1;
    within(SOON, "one engine is left", two).await;
    manager.running.shutdown().await;
}

/// POOLD-CONFIG-001
#[tokio::test]
async fn another_kind_of_pool_is_never_served_beside_the_old_one() {
    let setup = setup();
    let manager = setup.start().await;
    let old = manager.ready().await;
    setup.preparer.faults(&[("LOAD_MS", "300")]);
    let pool = PoolConfig { kind: PoolKind::Embedding, ..setup.pool.clone() };
    assert_eq!(configure(&manager, &[&pool]), ["p: restart (kind)"]);
    let loads = |r: &wire::ReplicaView| {
        r.phase == Phase::Starting && r.generation > old.generation && r.pid.is_some()
    };
    let new = manager.until(loads).await;
    assert_eq!(engines_of(setup.runtime()), [new.pid.unwrap()]);
    assert_eq!(configured(&manager, 1).await.state, OperationState::Succeeded);
    manager.running.shutdown().await;
}

/// POOLD-CONFIG-002
#[tokio::test]
async fn a_pool_that_could_work_nowhere_changes_nothing() {
    let setup = setup();
    let manager = setup.start().await;
    let before = manager.ready().await;
    let bad = PoolConfig { flags: vec!["--bogus".to_owned()], ..other(&setup, "q") };
    let refused = manager.running.configure(&config(&[&bad])).unwrap_err().to_string();
    assert!(refused.starts_with("pools[0] (q): flags: --bogus"), "{refused}");
    assert_eq!(manager.pools().await.len(), 1);
    assert_eq!(manager.ready().await, before);
    manager.running.shutdown().await;
}
