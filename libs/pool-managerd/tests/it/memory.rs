//! Memory is given out before an engine starts: two pools that together want more than there is.

use wire::config::{Config, Devices, PoolConfig};
use wire::pool::PoolView;
use wire::{Device, DeviceList, DeviceUser, Phase, PoolId, ReplicaId};

use crate::devices::card;
use crate::harness::{DEADLINE, Manager, Setup, setup};

const GIB: u64 = 1 << 30;

fn other(setup: &Setup) -> PoolConfig {
    PoolConfig { id: PoolId::try_new("q").unwrap(), ..setup.pool.clone() }
}

fn configure(manager: &Manager, pools: &[&PoolConfig]) {
    let pools = pools.iter().map(|pool| (*pool).clone()).collect();
    manager.running.configure(&Config { pools, ..Config::default() }).unwrap();
}

fn stands(pools: &[PoolView], phase: Phase) -> bool {
    pools.get(1).is_some_and(|pool| pool.replicas[0].phase == phase)
}

/// Why the second pool does not run.
async fn refusal(manager: &Manager) -> String {
    manager.until_pools(|pools| stands(pools, Phase::Failed)).await;
    let error = manager.pools().await.remove(1).replicas.remove(0).last_error.unwrap();
    assert_eq!(error.cause, "insufficient_memory");
    assert!(error.remedy.unwrap().contains("allow_oversubscribe: true"));
    error.message
}

/// The command line and environment of the first pool's engine.
async fn started(manager: &Manager) -> (String, String) {
    let pid = manager.replica().await.pid.unwrap();
    let read = |name| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap().replace('\0', " ");
    (read("cmdline"), read("environ"))
}

/// POOLD-MEMORY-001, POOLD-MEMORY-002, POOLD-MEMORY-003
#[tokio::test]
async fn two_pools_that_exceed_a_card_get_a_refusal_with_the_sum_and_the_second_starts_when_there_is_room() {
    let setup = setup();
    setup.cards.set(vec![card(0, 24, 24)]);
    setup.preparer.needs(Some("GPU-0"), 14 * GIB);
    let manager = setup.start().await;
    let first = manager.ready().await;
    assert_eq!(first.device_mask.as_deref(), Some("GPU-0"));
    let shown = manager.replica().await;
    assert_eq!(shown.device_mask, first.device_mask);
    assert!(first.load_ms.is_some() && shown.hints.unwrap().load_ms == first.load_ms, "{shown:?}");
    // The card says what it uses now, and it is more than was thought.
    setup.cards.set(vec![card(0, 24, 6)]);
    let q = other(&setup);
    configure(&manager, &[&setup.pool, &q]);
    let why = refusal(&manager).await;
    assert!(
        why.contains("p/r0 16.0 GiB + others 2.0 GiB + 16.0 GiB needed = 34.0 GiB, 10.0 GiB too much"),
        "{why}"
    );
    assert!(why.contains("card 0 (Card 0), which has 24.0 GiB"), "{why}");
    setup.cards.set(vec![card(0, 24, 24)]);
    manager.stop().await;
    manager.until_pools(|pools| stands(pools, Phase::Ready)).await;
    manager.running.shutdown().await;
}

/// POOLD-MEMORY-003, POOLD-MEMORY-006
#[tokio::test]
async fn those_that_wait_keep_their_order_and_take_nothing_from_an_engine_that_crashed() {
    let setup = setup();
    setup.cards.set(vec![card(0, 24, 24)]);
    setup.cards.used_by_engines_of(setup.runtime(), 16 * GIB);
    setup.preparer.needs(Some("GPU-0"), 14 * GIB);
    let manager = setup.start().await;
    let first = manager.ready().await;
    let named = |id: &str| PoolConfig { id: PoolId::try_new(id).unwrap(), ..setup.pool.clone() };
    let is = |id: &'static str, phase: Phase| {
        move |pools: &[PoolView]| {
            pools.iter().any(|pool| pool.id.as_str() == id && pool.replicas[0].phase == phase)
        }
    };
    // The later one is the first by name.
    let (sooner, later) = (named("q"), named("a"));
    configure(&manager, &[&setup.pool, &sooner]);
    manager.until_pools(is("q", Phase::Failed)).await;
    configure(&manager, &[&setup.pool, &sooner, &later]);
    manager.until_pools(is("a", Phase::Failed)).await;
    crate::harness::signal(first.pid.unwrap(), rustix::process::Signal::KILL);
    manager.until(|replica| replica.phase == Phase::Ready && replica.generation > first.generation).await;
    let pools = manager.pools().await;
    assert!(is("q", Phase::Failed)(&pools) && is("a", Phase::Failed)(&pools), "{pools:#?}");
    manager.stop().await;
    manager.until_pools(is("q", Phase::Ready)).await;
    assert!(is("a", Phase::Failed)(&manager.pools().await));
    manager.running.shutdown().await;
}

/// POOLD-MEMORY-001, POOLD-MEMORY-002
#[tokio::test]
async fn what_is_promised_to_an_engine_that_loads_is_not_free_and_a_pool_may_oversubscribe() {
    let setup = setup().with_faults(&[("LOAD_MS", "60000")]);
    setup.cards.set(vec![card(0, 24, 24)]);
    setup.preparer.needs(Some("GPU-0"), 14 * GIB);
    let manager = setup.start().await;
    manager.until(|replica| replica.pid.is_some()).await;
    setup.preparer.faults(&[]);
    let q = other(&setup);
    configure(&manager, &[&setup.pool, &q]);
    let why = refusal(&manager).await;
    assert!(why.contains("p/r0 16.0 GiB + 16.0 GiB needed = 32.0 GiB, 8.0 GiB too much"), "{why}");
    configure(&manager, &[&setup.pool, &PoolConfig { allow_oversubscribe: true, ..q }]);
    manager.until_pools(|pools| stands(pools, Phase::Ready)).await;
    manager.running.shutdown().await;
}

/// POOLD-MEMORY-002, POOLD-MEMORY-005, POOLD-DEVICE-004
#[tokio::test]
async fn what_a_card_says_that_an_engine_uses_takes_the_place_of_its_estimate_also_for_the_next_like_it() {
    let setup = setup();
    setup.cards.set(vec![card(0, 24, 24)]);
    setup.preparer.needs(Some("GPU-0"), 14 * GIB);
    let manager = setup.start().await;
    let pid = manager.ready().await.pid;
    let used = |gib: u64, free| {
        let mine = DeviceUser { pid, used_bytes: Some(gib * GIB), ..DeviceUser::default() };
        let other = DeviceUser { pid: Some(1), used_bytes: Some(GIB), ..DeviceUser::default() };
        vec![Device { users: vec![mine, other], ..card(0, 24, free) }]
    };
    setup.cards.set(used(12, 11));
    let q = other(&setup);
    configure(&manager, &[&setup.pool, &q]);
    let why = refusal(&manager).await;
    assert!(why.contains("(12.0 GiB were measured of an engine like it)"), "{why}");
    assert!(
        why.contains("p/r0 12.0 GiB + others 1.0 GiB + 12.0 GiB needed = 25.0 GiB, 1.0 GiB too much"),
        "{why}"
    );
    let shown = devices(&manager, |devices| devices[0].vram_free_bytes == 11 * GIB).await;
    let [mine, other] = shown[0].users.as_slice() else { panic!("{shown:?}") };
    assert_eq!((mine.pid, mine.used_bytes, mine.estimated_bytes), (pid, Some(12 * GIB), Some(16 * GIB)));
    assert_eq!((&mine.pool_id, &mine.replica_id), (&Some(setup.pool.id.clone()), &Some(ReplicaId::nth(0))));
    assert_eq!((other.pid, &other.pool_id), (Some(1), &None));
    // Less than the estimate is free, and as much as an engine like it was seen to use at most.
    setup.cards.set(used(10, 13));
    manager.until_pools(|pools| stands(pools, Phase::Ready)).await;
    manager.running.shutdown().await;
}

/// The cards as the API shows them, once they are as they should be.
async fn devices(manager: &Manager, are: impl Fn(&[Device]) -> bool) -> Vec<Device> {
    let token = manager.running.token().to_owned();
    let end = std::time::Instant::now() + DEADLINE;
    loop {
        let answer = manager.request("GET", "/v2/devices").bearer_auth(&token).send().await.unwrap();
        let shown = answer.json::<DeviceList>().await.unwrap().devices;
        if are(&shown) {
            return shown;
        }
        assert!(std::time::Instant::now() < end, "{shown:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// POOLD-MEMORY-004
#[tokio::test]
async fn a_model_for_two_cards_is_started_on_both_with_a_planned_split_and_the_next_manager_knows() {
    let mut setup = setup();
    setup.pool.on_exit = wire::config::OnExit::Keep;
    setup.pool.devices = Devices::Indices(vec![0, 1]);
    setup.cards.set(vec![card(0, 24, 24), card(1, 12, 12)]);
    setup.preparer.needs(Some("GPU-0,GPU-1"), 29 * GIB);
    let manager = setup.start().await;
    let before = manager.ready().await;
    let (line, environment) = started(&manager).await;
    assert!(line.contains("--tensor-split 20781,9938"), "{line}");
    assert!(environment.contains("CUDA_VISIBLE_DEVICES=GPU-0,GPU-1"), "{environment}");
    assert_eq!(before.device_mask.as_deref(), Some("GPU-0,GPU-1"));
    manager.running.shutdown().await;
    // Its memory is not free any more; that is no reason to end it.
    setup.cards.set(vec![card(0, 24, 1), card(1, 12, 1)]);
    let next = setup.start().await;
    assert_eq!(next.ready().await, before);
    next.stop().await;
    next.phase(Phase::Stopped).await;
    next.running.shutdown().await;
}

/// POOLD-MEMORY-004
#[tokio::test]
async fn auto_is_decided_when_the_engine_starts() {
    let setup = setup();
    setup.cards.set(vec![card(0, 24, 10), card(1, 24, 20)]);
    setup.preparer.needs(Some("GPU-0"), 14 * GIB);
    let manager = setup.start().await;
    manager.ready().await;
    assert!(started(&manager).await.1.contains("CUDA_VISIBLE_DEVICES=GPU-1 "));
    manager.running.shutdown().await;
}

/// POOLD-MEMORY-001
#[tokio::test]
async fn the_hosts_memory_counts_where_there_is_no_card() {
    let mut setup = setup();
    setup.memory = || Some(10 << 30);
    setup.preparer.needs(None, GIB);
    let manager = setup.start().await;
    manager.ready().await;
    setup.preparer.needs(None, 14 * GIB);
    let q = other(&setup);
    configure(&manager, &[&setup.pool, &q]);
    let why = refusal(&manager).await;
    assert!(why.contains("on this machine") && why.contains("15.5 GiB needed"), "{why}");
    manager.running.shutdown().await;
}
