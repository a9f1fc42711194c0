//! A held slot as a value.

use std::fmt;
use std::sync::Arc;

use wire::ReplicaKey;

use crate::Inner;
use crate::fold::{DownWatch, Held};

/// One slot of one life of a replica. Dropping it frees the slot and wakes whoever waits for one.
/// A lease that outlived its replica frees nothing.
pub struct SlotLease {
    inner: Arc<Inner>,
    key: ReplicaKey,
    generation: u64,
    held: Held,
}

impl SlotLease {
    pub(crate) fn new(inner: Arc<Inner>, key: ReplicaKey, generation: u64, held: Held) -> Self {
        Self { inner, key, generation, held }
    }

    /// The replica.
    #[must_use]
    pub fn key(&self) -> &ReplicaKey {
        &self.key
    }

    /// Its life.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether this life is over.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.held.down.borrow().is_some()
    }

    /// Resolves with the reason when this life is over; at once when it is over already. Does not
    /// borrow the lease, so that it can be pinned once and polled beside a stream.
    pub fn lost(&self) -> impl Future<Output = Arc<str>> + Send + 'static {
        went_down(self.held.down.clone())
    }
}

async fn went_down(mut down: DownWatch) -> Arc<str> {
    match down.wait_for(Option::is_some).await {
        Ok(reason) => reason.as_ref().map_or_else(|| "gone".into(), Arc::clone),
        // The registry sends a reason before it lets go of a life, so only a registry that is
        // being torn down gets here.
        Err(_) => "the registry is gone".into(),
    }
}

impl Drop for SlotLease {
    fn drop(&mut self) {
        self.inner.give_back(&self.key, self.held.life);
    }
}

impl fmt::Debug for SlotLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlotLease")
            .field("key", &self.key)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}
