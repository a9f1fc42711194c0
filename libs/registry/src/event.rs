//! What can happen to a replica.

use std::sync::Arc;
use std::time::Duration;

use wire::{Determinism, EngineFacts, ReplicaKey};

/// Something happened to a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It passed a probe and takes work, or its properties changed. After a [`Event::Down`] the
    /// same generation may come up again (it was only mute); its slots are then all free.
    Up(Up),
    /// Another life is about to take its place. It finishes what it has: its leases hold, even when the
    /// new generation comes up meanwhile, until it goes down. Means nothing for a generation other than
    /// the current one. A drain that somebody asked for comes as [`Event::Up`].
    Superseded {
        /// Which replica.
        key: ReplicaKey,
        /// Which life.
        generation: u64,
    },
    /// It is lost or stopped. Every lease of this life hears of it.
    Down {
        /// Which replica.
        key: ReplicaKey,
        /// Which life.
        generation: u64,
        /// Why, in one sentence.
        reason: String,
    },
    /// It has generated so many tokens for one task in that time. Means nothing for a life that is over.
    Generated {
        /// Which replica.
        key: ReplicaKey,
        /// Which life.
        generation: u64,
        /// After the first one, which comes with the prompt.
        tokens: u64,
        /// From the first one on.
        took: Duration,
    },
    /// As [`Event::Down`], and nobody expects it back: it is not shown any more.
    Gone {
        /// Which replica.
        key: ReplicaKey,
        /// Which life.
        generation: u64,
        /// Why, in one sentence.
        reason: String,
    },
}

/// A replica that takes work.
///
/// [`Up::new`] knows nothing but its slots; [`Up::ready_from_handoff`] what a handoff says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Up {
    /// Which replica.
    pub key: ReplicaKey,
    /// Which life; grows with each start.
    pub generation: u64,
    /// Concurrent generations.
    pub slots: u32,
    /// As in `PreparedEngine`.
    pub engine_version: String,
    /// What is known of the engine beyond that.
    pub engine: Arc<EngineFacts>,
    /// The model's name.
    pub model_id: String,
    /// SHA-256 (hex) of the model file; empty when nobody said.
    pub model_digest: String,
    /// Tokens of context per slot, where known.
    pub ctx: Option<u32>,
    /// What it may claim about sameness; `None` when nobody said.
    pub determinism: Option<Arc<Determinism>>,
    /// The cards it runs on, as `CUDA_VISIBLE_DEVICES` has them; `None` without cards or word of them.
    pub device_mask: Option<String>,
    /// How long it took to load, where that was measured.
    pub load: Option<Duration>,
    /// It finishes what it has and takes nothing new.
    pub draining: bool,
}
