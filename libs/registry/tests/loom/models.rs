//! The models; see `../loom.rs`.

use loom::future::block_on;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use registry::{Event, Registry, SlotLease, Up};
use wire::{PoolId, ReplicaId, ReplicaKey};

fn key() -> ReplicaKey {
    ReplicaKey { pool: PoolId::try_new("p").unwrap(), replica: ReplicaId::nth(0) }
}

fn up(generation: u64, slots: u32) -> Event {
    Event::Up(Up::new(key(), generation, slots))
}

fn down(generation: u64) -> Event {
    Event::Down { key: key(), generation, reason: "killed".to_owned() }
}

fn free(registry: &Registry) -> u32 {
    registry.snapshot().replicas[&key()].slots_free
}

#[test]
fn one_slot_is_never_held_twice_and_is_free_at_the_end() {
    loom::model(|| {
        let registry = Registry::default();
        registry.apply(up(1, 1));
        let held = Arc::new(AtomicUsize::new(0));
        let taker = || {
            let (registry, held) = (registry.clone(), Arc::clone(&held));
            thread::spawn(move || {
                if let Some(lease) = registry.try_lease(&key(), 1) {
                    assert_eq!(held.fetch_add(1, Ordering::AcqRel), 0, "two hold one slot");
                    held.fetch_sub(1, Ordering::AcqRel);
                    drop(lease);
                }
            })
        };
        let (one, other) = (taker(), taker());
        one.join().unwrap();
        other.join().unwrap();
        assert_eq!(free(&registry), 1);
    });
}

/// What waits for a slot as a pool's loop does: marks the registry as seen, tries, waits for a change.
async fn wait_for_slot(registry: &Registry, generation: u64) -> SlotLease {
    let mut changed = registry.changed();
    loop {
        changed.borrow_and_update();
        if let Some(lease) = registry.try_lease(&key(), generation) {
            return lease;
        }
        changed.changed().await.unwrap();
    }
}

#[test]
fn whoever_waits_for_a_slot_gets_it_when_it_is_given_back() {
    loom::model(|| {
        let registry = Registry::default();
        registry.apply(up(1, 1));
        let lease = registry.try_lease(&key(), 1).unwrap();
        let giver = thread::spawn(move || drop(lease));
        drop(block_on(wait_for_slot(&registry, 1)));
        giver.join().unwrap();
        assert_eq!(free(&registry), 1);
    });
}

#[test]
fn a_lease_of_a_life_that_ends_hears_of_it_and_takes_nothing_from_the_next() {
    loom::model(|| {
        let registry = Registry::default();
        registry.apply(up(1, 1));
        let lease = registry.try_lease(&key(), 1).unwrap();
        let other = registry.clone();
        let manager = thread::spawn(move || {
            other.apply(down(1));
            other.apply(up(2, 1));
        });
        assert_eq!(&*block_on(lease.lost()), "killed");
        drop(lease);
        manager.join().unwrap();
        assert_eq!(free(&registry), 1);
    });
}

#[test]
fn a_slot_that_is_given_back_while_its_replica_goes_and_comes_back_is_counted_once() {
    loom::model(|| {
        let registry = Registry::default();
        registry.apply(up(1, 2));
        let lease = registry.try_lease(&key(), 1).unwrap();
        let giver = thread::spawn(move || drop(lease));
        let other = registry.clone();
        // The engine was only mute: the same generation comes back.
        let manager = thread::spawn(move || {
            other.apply(down(1));
            other.apply(up(1, 2));
        });
        giver.join().unwrap();
        manager.join().unwrap();
        assert_eq!(free(&registry), 2);
        let (one, two) = (registry.try_lease(&key(), 1), registry.try_lease(&key(), 1));
        assert!(one.is_some() && two.is_some() && registry.try_lease(&key(), 1).is_none());
    });
}
