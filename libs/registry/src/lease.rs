//! A held slot as a value.

use std::fmt;
use std::sync::Arc;

use wire::ReplicaKey;

use crate::Inner;
use crate::fold::{Drain, Held, Standing, StandingWatch};

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
        matches!(*self.held.standing.borrow(), Standing::Over { .. })
    }

    /// Why this life drains, or drained when it ended: then its end was no failure of its own.
    #[must_use]
    pub fn drain(&self) -> Option<Drain> {
        self.held.standing.borrow().drain()
    }

    /// Resolves with the reason when this life is over; at once when it is over already. Does not
    /// borrow the lease, so that it can be pinned once and polled beside a stream.
    pub fn lost(&self) -> impl Future<Output = Arc<str>> + Send + 'static {
        went_down(self.held.standing.clone())
    }
}

async fn went_down(mut standing: StandingWatch) -> Arc<str> {
    match standing.wait_for(|standing| matches!(standing, Standing::Over { .. })).await.as_deref() {
        Ok(Standing::Over { reason, .. }) => Arc::clone(reason),
        // The registry says so before it lets go of a life, so only a registry that is being torn
        // down gets here.
        Ok(Standing::Serves | Standing::Drains(_)) | Err(_) => "the registry is gone".into(),
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
