//! The registry at one moment.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use wire::{Determinism, EngineFacts, PoolId, ReplicaKey};

use crate::order::{Edge, Spot};

/// Every replica that is up or expected back, as it was at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// By key, in order.
    pub replicas: BTreeMap<ReplicaKey, Replica>,
}

/// One replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// The life it lives, or lived last.
    pub generation: u64,
    /// Slots it offers.
    pub slots_total: u32,
    /// Slots nobody holds; 0 while it is not ready.
    pub slots_free: u32,
    /// It is up. A draining replica is still ready: it answers, but takes nothing new.
    pub ready: bool,
    /// It takes nothing new.
    pub draining: bool,
    /// As in `PreparedEngine`.
    pub engine_version: Arc<str>,
    /// What is known of the engine beyond that.
    pub engine: Arc<EngineFacts>,
    /// The model's name.
    pub model_id: Arc<str>,
    /// SHA-256 (hex) of the model; empty when nobody said.
    pub model_digest: Arc<str>,
    /// Tokens of context per slot, where known.
    pub ctx: Option<u32>,
    /// What it may claim about sameness; `None` when nobody said.
    pub determinism: Option<Arc<Determinism>>,
    /// The cards it runs on, as `CUDA_VISIBLE_DEVICES` has them.
    pub device_mask: Option<Arc<str>>,
    /// How fast it was measured to be.
    pub hints: Hints,
    /// Why it went down last; stays when it is up again.
    pub last_down_reason: Option<Arc<str>>,
}

/// What was measured of a replica; nothing is guessed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hints {
    /// How long it took to load.
    pub load: Option<Duration>,
    /// What a token takes lately that one generation waits for, after its first.
    pub per_token: Option<Duration>,
}

impl Replica {
    /// Whether it would take a task now.
    #[must_use]
    pub fn takes_work(&self) -> bool {
        self.ready && !self.draining && self.slots_free > 0
    }
}

impl Snapshot {
    /// The replicas of one pool, in order.
    pub fn pool<'a>(&'a self, pool: &'a PoolId) -> impl Iterator<Item = (&'a ReplicaKey, &'a Replica)> {
        // Found, not filtered: no name is read on the way, and other pools cost nothing.
        let (start, end) = (Edge::start(pool), Edge::end(pool));
        let bounds: (Bound<&dyn Spot>, Bound<&dyn Spot>) = (Bound::Excluded(&start), Bound::Excluded(&end));
        self.replicas.range::<dyn Spot, _>(bounds)
    }
}
