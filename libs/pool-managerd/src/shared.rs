//! What all replicas of one manager share: directories, turns, limits and counters.
//!
//! Decides nothing; every part has its own owner.

use std::sync::Arc;

use handoff::HandoffDir;
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;
use wire::StepStatus;

use crate::admission::Ledger;
use crate::board::Seat;
use crate::cards::Cards;
use crate::determinism::Kept;
use crate::launch::InheritedEnv;
use crate::metrics::Metrics;
use crate::record::RunDir;
use crate::{AvailableMemory, Prepare, Timings};

/// What all replicas of this manager share.
pub(crate) struct Shared {
    pub(crate) run: RunDir,
    pub(crate) handoffs: HandoffDir,
    pub(crate) inherited: InheritedEnv,
    pub(crate) preparer: Arc<dyn Prepare>,
    /// One provisioning at a time: builds and downloads do not get faster side by side.
    pub(crate) provisioning: Mutex<()>,
    /// Engines that may load at once.
    pub(crate) loading: Semaphore,
    /// What a second engine beside one that serves may use.
    pub(crate) memory: AvailableMemory,
    pub(crate) cards: Cards,
    /// Who has what of the machine's memory.
    pub(crate) ledger: Ledger,
    /// What self-tests found.
    pub(crate) self_tests: Kept,
    pub(crate) timings: Timings,
    pub(crate) metrics: Metrics,
    /// Told when nobody waits for an engine to end politely any more.
    pub(crate) hurry: CancellationToken,
}

impl Shared {
    /// A turn to load; waited for in the order of asking, and that it is waited for is shown. `None` never
    /// comes: nobody closes the semaphore.
    pub(crate) async fn turn_to_load(&self, seat: &Seat) -> Option<SemaphorePermit<'_>> {
        if let Ok(turn) = self.loading.try_acquire() {
            return Some(turn);
        }
        seat.warmup(StepStatus::Running, "waits for its turn: as many engines load as may at once");
        self.loading.acquire().await.ok()
    }
}
