//! Logs that nobody keeps but their readers. Whoever bounds what readers hold lets go of them, and a reader
//! that was not done learns how far behind it was.

use std::sync::{Arc, Weak};

use crate::TaskLog;
use crate::log::Store;

/// A log that is counted without being kept.
#[derive(Debug, Clone)]
pub struct HeldLog {
    pub(crate) store: Weak<Store>,
}

/// What a reader had not read of a log when it was let go of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Behind {
    /// Entries.
    pub entries: u64,
    /// Bytes of them, as counted against the log's limit. Who comes only then counts from the last entry
    /// whose number 64 divides, here and below.
    pub bytes: usize,
    /// Token events before them.
    pub token_events: u64,
}

impl TaskLog {
    /// This log, to be counted without being kept.
    #[must_use]
    pub fn held(&self) -> HeldLog {
        HeldLog { store: Arc::downgrade(&self.store) }
    }

    /// Whether its entries were let go of.
    #[must_use]
    pub fn is_let_go(&self) -> bool {
        self.store.is_let_go()
    }
}

impl HeldLog {
    /// Whether anybody still holds it.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.store.strong_count() > 0
    }

    /// Takes the entries of a log that has ended away from its readers, but for the at most 64 that each of
    /// them is at; see [`Follower::behind`]. One that has not ended stays whole. For a log that a journal
    /// records there is [`Journal::let_go`].
    ///
    /// [`Follower::behind`]: crate::Follower::behind
    /// [`Journal::let_go`]: crate::Journal::let_go
    pub fn let_go(&self) {
        if let Some(store) = self.store.upgrade() {
            store.let_go();
        }
    }
}
