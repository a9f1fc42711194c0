//! What leases promise.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test helper fails by panicking"
)]

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use registry::{Drain, Event, MAX_SLOTS, Registry, SlotLease, Up};
use wire::{PoolId, ReplicaId, ReplicaKey};

fn key(n: u32) -> ReplicaKey {
    ReplicaKey { pool: PoolId::try_new("p").unwrap(), replica: ReplicaId::nth(n) }
}

fn up(n: u32, generation: u64, slots: u32) -> Event {
    Event::Up(Up {
        engine_version: "v".to_owned(),
        model_id: "m".to_owned(),
        model_digest: "d".to_owned(),
        ctx: Some(16),
        ..Up::new(key(n), generation, slots)
    })
}

fn down(n: u32, generation: u64) -> Event {
    Event::Down { key: key(n), generation, reason: "killed".to_owned() }
}

fn free(registry: &Registry, n: u32) -> u32 {
    registry.snapshot().replicas[&key(n)].slots_free
}

#[test]
fn a_dropped_lease_frees_its_slot() {
    let registry = Registry::default();
    registry.apply(up(0, 1, 1));
    let lease = registry.try_lease(&key(0), 1).unwrap();
    assert!(registry.try_lease(&key(0), 1).is_none());
    drop(lease);
    assert!(registry.try_lease(&key(0), 1).is_some());
}

#[tokio::test]
async fn a_freed_slot_wakes() {
    let registry = Registry::default();
    registry.apply(up(0, 1, 1));
    let lease = registry.try_lease(&key(0), 1).unwrap();
    let mut changed = registry.changed();
    changed.borrow_and_update();
    drop(lease);
    assert!(changed.has_changed().unwrap());
}

#[test]
fn an_older_life_never_changes_a_newer_one() {
    let registry = Registry::default();
    registry.apply(up(0, 2, 3));
    let before = registry.snapshot();
    registry.apply(up(0, 1, 9));
    registry.apply(down(0, 1));
    registry.apply(Event::Superseded { key: key(0), generation: 1 });
    assert_eq!(registry.snapshot(), before);
    assert!(registry.try_lease(&key(0), 1).is_none());
}

#[test]
fn a_lease_of_an_old_life_frees_no_slot_of_the_new_one() {
    let registry = Registry::default();
    registry.apply(up(0, 1, 1));
    let old = registry.try_lease(&key(0), 1).unwrap();
    registry.apply(up(0, 2, 1));
    assert!(old.is_lost());
    let new = registry.try_lease(&key(0), 2).unwrap();
    drop(old);
    assert_eq!(free(&registry, 0), 0);
    drop(new);
    assert_eq!(free(&registry, 0), 1);
}

#[test]
fn a_mute_engine_that_comes_back_as_the_same_generation_has_all_its_slots() {
    let registry = Registry::default();
    registry.apply(up(0, 1, 1));
    let old = registry.try_lease(&key(0), 1).unwrap();
    registry.apply(down(0, 1));
    registry.apply(up(0, 1, 1));
    let new = registry.try_lease(&key(0), 1).unwrap();
    drop(old);
    assert_eq!(free(&registry, 0), 0);
    assert!(!new.is_lost());
}

#[tokio::test]
async fn every_lease_of_a_lost_life_hears_of_it_and_why() {
    let registry = Registry::default();
    registry.apply(up(0, 1, 2));
    let early = registry.try_lease(&key(0), 1).unwrap();
    let waiting = early.lost();
    let late = registry.try_lease(&key(0), 1).unwrap();
    registry.apply(down(0, 1));
    assert_eq!(&*waiting.await, "killed");
    assert_eq!(&*late.lost().await, "killed");
    assert_eq!(registry.snapshot().replicas[&key(0)].last_down_reason.as_deref(), Some("killed"));
}

#[test]
fn what_is_down_keeps_its_reason_until_a_later_life_is_lost() {
    let registry = Registry::default();
    let down = |generation, reason: &str| {
        registry.apply(Event::Down { key: key(0), generation, reason: reason.to_owned() });
        let replica = registry.snapshot().replicas[&key(0)].clone();
        (replica.generation, replica.last_down_reason.unwrap().to_string())
    };
    registry.apply(up(0, 1, 1));
    assert_eq!(down(1, "killed"), (1, "killed".to_owned()));
    let mut changed = registry.changed();
    changed.borrow_and_update();
    assert_eq!(down(1, "withdrawn"), (1, "killed".to_owned()), "that life was lost already");
    assert!(!changed.has_changed().unwrap(), "nothing changed");
    assert_eq!(down(2, "never up"), (2, "never up".to_owned()));
}

#[test]
fn a_draining_replica_keeps_its_leases_and_gives_no_new_ones() {
    let registry = Registry::default();
    registry.apply(up(0, 1, 2));
    let lease = registry.try_lease(&key(0), 1).unwrap();
    let mut changed = registry.changed();
    changed.mark_unchanged();
    registry.apply(Event::Superseded { key: key(0), generation: 1 });
    assert!(changed.has_changed().unwrap(), "whoever waits for a place looks again");
    assert!(!lease.is_lost());
    assert!(registry.try_lease(&key(0), 1).is_none());
    changed.mark_unchanged();
    registry.apply(Event::Superseded { key: key(0), generation: 1 });
    assert!(!changed.has_changed().unwrap(), "nothing changed");
}

/// ORCHD-DRAIN-002
#[test]
fn a_draining_life_keeps_its_leases_when_a_new_one_takes_its_place() {
    let registry = Registry::default();
    registry.apply(up(0, 1, 2));
    let old = registry.try_lease(&key(0), 1).unwrap();
    registry.apply(Event::Superseded { key: key(0), generation: 1 });
    registry.apply(up(0, 2, 1));
    assert!(!old.is_lost() && old.drain() == Some(Drain::Superseded));
    assert!(registry.is_held(&key(0), 1));
    let new = registry.try_lease(&key(0), 2).unwrap();
    assert_eq!(new.drain(), None);
    assert_eq!(free(&registry, 0), 0, "each life has its own slots");
    registry.apply(down(0, 1));
    assert!(old.is_lost() && old.drain() == Some(Drain::Superseded), "not a failure of its own");
    assert!(!new.is_lost());
    drop((old, new));
    assert_eq!(free(&registry, 0), 1);
    assert!(!registry.is_held(&key(0), 1));
}

/// ORCHD-DRAIN-002
#[test]
fn a_life_is_held_until_its_last_slot_is_free_and_no_other_life_is() {
    let registry = Registry::default();
    registry.apply(up(0, 1, 2));
    registry.apply(up(1, 1, 2));
    assert!(!registry.is_held(&key(0), 1));
    let (one, other) = (registry.try_lease(&key(0), 1).unwrap(), registry.try_lease(&key(0), 1).unwrap());
    assert!(registry.is_held(&key(0), 1));
    assert!(!registry.is_held(&key(0), 2) && !registry.is_held(&key(1), 1));
    registry.apply(Event::Superseded { key: key(0), generation: 1 });
    registry.apply(up(0, 2, 1));
    assert!(registry.is_held(&key(0), 1));
    assert!(!registry.is_held(&key(0), 2) && !registry.is_held(&key(1), 1));
    drop(one);
    assert!(registry.is_held(&key(0), 1), "one of two still runs");
    drop(other);
    assert!(!registry.is_held(&key(0), 1));
    registry.apply(Event::Superseded { key: key(0), generation: 2 });
    registry.apply(up(0, 3, 1));
    assert!(!registry.is_held(&key(0), 2), "nothing ran on it when it was replaced");
}

/// ORCHD-DRAIN-002
#[test]
fn a_draining_life_that_is_in_front_again_still_counts_what_runs_on_it() {
    let registry = Registry::default();
    registry.apply(up(0, 1, 2));
    let old = registry.try_lease(&key(0), 1).unwrap();
    registry.apply(Event::Superseded { key: key(0), generation: 1 });
    registry.apply(up(0, 2, 1));
    registry.apply(Event::Gone { key: key(0), generation: 2, reason: "withdrawn".to_owned() });
    registry.apply(up(0, 1, 2));
    assert_eq!(free(&registry, 0), 1, "one of the two is still taken");
    assert!(!old.is_lost() && old.drain().is_none());
    drop(old);
    assert_eq!(free(&registry, 0), 2);
}

/// ORCHD-AUTOBIND-003
#[test]
fn a_replica_that_is_gone_is_not_shown_and_may_come_again() {
    let registry = Registry::default();
    let gone = |generation| Event::Gone { key: key(0), generation, reason: "withdrawn".to_owned() };
    registry.apply(up(0, 1, 1));
    let lease = registry.try_lease(&key(0), 1).unwrap();
    registry.apply(gone(1));
    assert!(lease.is_lost() && lease.drain().is_none());
    assert!(registry.snapshot().replicas.is_empty());
    registry.apply(up(0, 2, 1));
    registry.apply(gone(1));
    assert_eq!(free(&registry, 0), 1, "an older life takes nothing with it");
    registry.apply(down(0, 2));
    registry.apply(gone(2));
    assert!(registry.snapshot().replicas.is_empty(), "also one that was down before");
}

#[test]
fn the_replicas_of_a_pool_are_its_own_in_order() {
    let registry = Registry::default();
    // Names that begin alike, and the lowest and the highest that there are.
    let pools = ["0", "p", "p-", "p-0", "p0", "p_", "pa", "q", &"z".repeat(63)];
    let replicas = ["0", "0-", "r0", "r1", &"z".repeat(63)];
    let pool = |name: &str| PoolId::try_new(name).unwrap();
    let key =
        |of: &str, name: &str| ReplicaKey { pool: pool(of), replica: ReplicaId::try_new(name).unwrap() };
    for name in replicas.iter().rev() {
        pools.iter().for_each(|of| registry.apply(Event::Up(Up::new(key(of, name), 1, 1))));
    }
    let snapshot = registry.snapshot();
    let of = |name: &str| snapshot.pool(&pool(name)).map(|(key, _)| key.clone()).collect::<Vec<_>>();
    for name in pools {
        assert_eq!(of(name), replicas.map(|replica| key(name, replica)), "{name}");
    }
    assert_eq!(of("p1"), [], "a pool without replicas");
}

#[test]
fn a_snapshot_does_not_change() {
    let registry = Registry::default();
    registry.apply(up(0, 1, 2));
    let before = registry.snapshot();
    let _lease = registry.try_lease(&key(0), 1);
    assert_eq!(before.replicas[&key(0)].slots_free, 2);
    assert_eq!(free(&registry, 0), 1);
}

#[derive(Debug, Clone)]
enum Act {
    Apply(Event),
    Lease(u32, u64),
    Drop(usize),
}

fn act() -> impl Strategy<Value = Act> {
    let who = (0..2_u32, 1..4_u64);
    prop_oneof![
        2 => (who.clone(), 0..4_u32).prop_map(|((n, g), slots)| Act::Apply(up(n, g, slots))),
        1 => who.clone().prop_map(|(n, g)| Act::Apply(down(n, g))),
        1 => who.clone().prop_map(|(n, generation)| {
            Act::Apply(Event::Gone { key: key(n), generation, reason: "withdrawn".to_owned() })
        }),
        1 => who.clone().prop_map(|(n, generation)| Act::Apply(Event::Superseded { key: key(n), generation })),
        4 => who.prop_map(|(n, g)| Act::Lease(n, g)),
        3 => (0..8_usize).prop_map(Act::Drop),
    ]
}

// Unlost leases of a replica are exactly its taken slots.
fn check(registry: &Registry, held: &[SlotLease]) -> Result<(), TestCaseError> {
    for (key, replica) in &registry.snapshot().replicas {
        let of_it = |lease: &&SlotLease| lease.key() == key && lease.generation() == replica.generation;
        let live = held.iter().filter(of_it).filter(|lease| !lease.is_lost()).count();
        let live = u32::try_from(live).unwrap();
        let expected = if replica.ready { replica.slots_total.saturating_sub(live) } else { 0 };
        prop_assert_eq!(replica.slots_free, expected);
        prop_assert!(replica.ready || live == 0, "a lease of a replica that is down must be lost");
    }
    Ok(())
}

proptest! {
    #[test]
    fn slots_never_leak_and_are_never_given_twice(acts in proptest::collection::vec(act(), 0..80)) {
        let registry = Registry::default();
        let mut held: Vec<SlotLease> = Vec::new();
        for act in acts {
            match act {
                Act::Apply(event) => registry.apply(event),
                Act::Lease(n, generation) => {
                    let could = registry.snapshot().replicas.get(&key(n))
                        .is_some_and(|r| r.takes_work() && r.generation == generation);
                    let lease = registry.try_lease(&key(n), generation);
                    prop_assert_eq!(lease.is_some(), could);
                    held.extend(lease);
                }
                Act::Drop(i) if i < held.len() => drop(held.swap_remove(i)),
                Act::Drop(_) => {}
            }
            check(&registry, &held)?;
        }
        held.clear();
        for replica in registry.snapshot().replicas.values().filter(|r| r.ready) {
            prop_assert_eq!(replica.slots_free, replica.slots_total);
        }
    }
}

#[test]
fn many_threads_never_hold_more_than_there_is() {
    use std::sync::atomic::{AtomicU32, Ordering};
    let registry = Registry::default();
    registry.apply(up(0, 1, 3));
    let (now, taken) = (AtomicU32::new(0), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..2_000 {
                    let Some(lease) = registry.try_lease(&key(0), 1) else { continue };
                    assert!(now.fetch_add(1, Ordering::SeqCst) < 3);
                    taken.fetch_add(1, Ordering::SeqCst);
                    now.fetch_sub(1, Ordering::SeqCst);
                    drop(lease);
                }
            });
        }
    });
    assert!(taken.load(Ordering::SeqCst) > 0);
    assert_eq!(free(&registry, 0), 3);
}

/// ORCHD-REG-001
#[test]
fn what_a_replica_generated_shows_how_fast_it_is_until_another_life_begins() {
    let registry = Registry::default();
    registry.apply(up(0, 1, 2));
    let per_token = || registry.snapshot().replicas[&key(0)].hints.per_token;
    let generated = |generation, tokens, ms| {
        let took = Duration::from_millis(ms);
        registry.apply(Event::Generated { key: key(0), generation, tokens, took });
    };
    assert_eq!(per_token(), None, "nothing was measured");
    generated(1, 0, 50);
    generated(2, 10, 50);
    assert_eq!(per_token(), None, "nothing of this life was");
    generated(1, 10, 200);
    assert_eq!(per_token(), Some(Duration::from_millis(20)));
    (0..300).for_each(|_| generated(1, 10, 100));
    let now = per_token().unwrap();
    let expected = Duration::from_micros(9_990)..Duration::from_micros(10_100);
    assert!(expected.contains(&now), "the old fades, its tokens as its time: {now:?}");
    registry.apply(Event::Superseded { key: key(0), generation: 1 });
    assert_eq!(per_token(), Some(now));
    registry.apply(up(0, 2, 2));
    assert_eq!(per_token(), None);
}

/// ORCHD-REG-002
#[test]
fn a_handoff_is_shown_as_it_says_and_the_engines_own_word_counts_more() {
    let handoff = |ctx: u32| {
        serde_json::from_value(serde_json::json!({
            "url": "http://127.0.0.1:1", "pool_id": "p", "slots_total": 2, "ctx": ctx,
            "engine_version": "llamacpp-1", "model": {"id": "haiku", "digest": "00ff"},
            "determinism": {"result": "not_declared", "device": "a card", "differs": ["the batch"]},
        }))
        .unwrap()
    };
    let shown = |up: Up| {
        let registry = Registry::default();
        let key = up.key.clone();
        registry.apply(Event::Up(up));
        registry.snapshot().replicas[&key].clone()
    };
    let said = shown(Up::ready_from_handoff(1, &handoff(2_048)));
    assert_eq!(
        (&*said.engine_version, &*said.model_id, &*said.model_digest),
        ("llamacpp-1", "haiku", "00ff")
    );
    assert_eq!(said.determinism.unwrap().differs, ["the batch"]);
    assert_eq!((said.slots_total, said.ctx), (2, Some(2_048)));
    let probed = shown(Up::ready_from_handoff(1, &handoff(2_048)).offering(Some(3), Some(512)));
    assert_eq!((probed.slots_total, probed.ctx), (3, Some(512)));
    assert_eq!(shown(Up::ready_from_handoff(1, &handoff(0))).ctx, None, "a context of nothing is unknown");
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2_000,
        rng_seed: RngSeed::Fixed(4),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// ORCHD-REG-002
    #[test]
    fn a_handoff_with_whatever_fields_becomes_a_replica_with_slots_that_can_be(
        given in prop::collection::vec(any::<bool>(), 9),
        slots in prop_oneof![Just(0), Just(1), Just(u32::MAX), any::<u32>()],
        probed in prop::option::of(any::<u32>()),
        ctx in any::<u32>(),
        number in any::<u64>(),
        text in ".{0,8}",
    ) {
        let fields = [
            ("slots_total", serde_json::json!(slots)),
            ("ctx", serde_json::json!(ctx)),
            ("load_ms", serde_json::json!(number)),
            ("generation", serde_json::json!(number)),
            ("engine_version", serde_json::json!(text)),
            ("model", serde_json::json!({"id": text})),
            ("device_mask", serde_json::json!(text)),
            ("state", serde_json::json!("draining")),
            ("pool_id", serde_json::json!("q")),
        ];
        let mut handoff = serde_json::json!({"url": "http://127.0.0.1:1"});
        for ((name, value), _) in fields.into_iter().zip(&given).filter(|(_, given)| **given) {
            handoff[name] = value;
        }
        let handoff = serde_json::from_value(handoff).unwrap();
        let up = Up::ready_from_handoff(7, &handoff).offering(probed, Some(0));
        let registry = Registry::default();
        let key = up.key.clone();
        registry.apply(Event::Up(up));
        let snapshot = registry.snapshot();
        let replica = &snapshot.replicas[&key];
        prop_assert_eq!(key.pool.as_str(), if given[8] { "q" } else { "default" });
        prop_assert!((1..=MAX_SLOTS).contains(&replica.slots_total));
        prop_assert_eq!(replica.slots_free, replica.slots_total);
        prop_assert_eq!(replica.draining, given[7]);
        prop_assert_eq!(replica.hints.load, given[2].then(|| Duration::from_millis(number)));
        prop_assert_eq!(replica.ctx, Some(ctx).filter(|ctx| given[1] && *ctx > 0));
        prop_assert_eq!(replica.device_mask.as_deref(), Some(&*text).filter(|text| given[6] && !text.is_empty()));
    }
}
