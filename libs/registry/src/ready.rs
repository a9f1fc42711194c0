//! What a handoff says of a replica, however little that is. A field that is missing is unknown, a number
//! that cannot be is taken as the nearest one that can, and nothing here panics: a handoff may be written
//! by hand.

use std::sync::Arc;
use std::time::Duration;

use wire::{Handoff, HandoffState, ReplicaKey};

use crate::Up;

/// Slots that one replica may offer at most; a configuration may ask for 256.
pub const MAX_SLOTS: u32 = 4_096;

impl Up {
    /// A replica of which nothing is known but its slots.
    #[must_use]
    pub fn new(key: ReplicaKey, generation: u64, slots: u32) -> Self {
        Self {
            key,
            generation,
            slots: possible(slots),
            engine_version: String::new(),
            engine: Arc::default(),
            model_id: String::new(),
            model_digest: String::new(),
            ctx: None,
            determinism: None,
            device_mask: None,
            load: None,
            draining: false,
        }
    }

    /// A replica that its handoff claims to be ready. `generation` is the caller's count of its lives:
    /// handoffs that are written by hand all have the same.
    #[must_use]
    pub fn ready_from_handoff(generation: u64, handoff: &Handoff) -> Self {
        let key = ReplicaKey { pool: handoff.pool_id.clone(), replica: handoff.replica_id.clone() };
        Self {
            engine_version: handoff.engine_version.clone(),
            model_id: handoff.model.id.clone(),
            model_digest: handoff.model.digest.clone(),
            ctx: handoff.ctx.filter(|ctx| *ctx > 0),
            determinism: handoff.determinism.clone().map(Arc::new),
            device_mask: handoff.device_mask.clone().filter(|mask| !mask.is_empty()),
            load: handoff.load_ms.map(Duration::from_millis),
            draining: handoff.state == HandoffState::Draining,
            ..Self::new(key, generation, handoff.slots_total)
        }
    }

    /// The engine's own word on what it offers counts more than its handoff's.
    #[must_use]
    pub fn offering(mut self, slots: Option<u32>, ctx: Option<u32>) -> Self {
        self.slots = slots.map_or(self.slots, possible);
        self.ctx = ctx.filter(|ctx| *ctx > 0).or(self.ctx);
        self
    }
}

fn possible(slots: u32) -> u32 {
    slots.clamp(1, MAX_SLOTS)
}
