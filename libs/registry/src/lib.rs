//! Who is ready and how many slots are free: a pure fold over [`Event`]s that hands out slot
//! leases.
//!
//! Reads no files, no network and no clock: whoever watches engines decides what happened and
//! says so with [`Registry::apply`]; whoever dispatches reads a [`Snapshot`] and takes a
//! [`SlotLease`]. A slot is held by a value, so there is no release to forget.
#![forbid(unsafe_code)]
#![allow(unexpected_cfgs, reason = "cfg(loom) is given by hand, for the models in tests/loom.rs")]

mod event;
mod fold;
mod lease;
mod order;
mod ready;
mod snapshot;

#[cfg(not(loom))]
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
#[cfg(loom)]
use std::sync::{Arc, PoisonError};

// The models in tests/loom.rs try every interleaving of this lock, too.
#[cfg(loom)]
use loom::sync::{Mutex, MutexGuard};

use tokio::sync::watch;
use wire::ReplicaKey;

pub use event::{Event, Up};
pub use fold::Drain;
pub use lease::SlotLease;
pub use ready::MAX_SLOTS;
pub use snapshot::{Hints, Replica, Snapshot};

use fold::Fold;

/// The registry. Cheap to clone; all clones are one registry.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    fold: Mutex<Fold>,
    changed: watch::Sender<u64>,
}

impl Default for Inner {
    fn default() -> Self {
        Self { fold: Mutex::default(), changed: watch::Sender::new(0) }
    }
}

impl Registry {
    /// Folds an event in. An event of an older generation never changes a newer one.
    pub fn apply(&self, event: Event) {
        let changed = self.inner.lock().apply(event);
        if changed {
            self.inner.wake();
        }
    }

    /// What is so now. Immutable, and cheap: the map is copied only when somebody still holds the
    /// snapshot before while something changes.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.inner.lock().snapshot()
    }

    /// Takes a slot of exactly this life of the replica. `None` when the replica is gone or
    /// draining, lives another life, or has no free slot.
    #[must_use]
    pub fn try_lease(&self, key: &ReplicaKey, generation: u64) -> Option<SlotLease> {
        let held = self.inner.lock().take_slot(key, generation)?;
        self.inner.wake();
        Some(SlotLease::new(Arc::clone(&self.inner), key.clone(), generation, held))
    }

    /// Whether anybody holds a slot of this life of the replica.
    #[must_use]
    pub fn is_held(&self, key: &ReplicaKey, generation: u64) -> bool {
        self.inner.lock().is_held(key, generation)
    }

    /// Wakes on every change, a freed slot included, but not for what is only measured. The number only
    /// grows; it means nothing else.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.inner.changed.subscribe()
    }
}

impl Inner {
    // A poisoned lock is taken as it is: every change below is complete or not begun.
    fn lock(&self) -> MutexGuard<'_, Fold> {
        self.fold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        self.changed.send_modify(|version| *version += 1);
    }

    fn give_back(&self, key: &ReplicaKey, life: u64) {
        let freed = self.lock().free_slot(key, life);
        if freed {
            self.wake();
        }
    }
}
