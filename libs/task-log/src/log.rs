//! The log: where entries are kept and how followers are woken.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use tokio::sync::watch;

use crate::{Entry, Follower, LogWriter, Position};

/// Entries per chunk. Followers look a chunk up once and then read without any lock.
const CHUNK_ENTRIES: usize = 64;

/// A task's log, for reading. Cheap to clone; all clones are one log.
#[derive(Debug, Clone)]
pub struct TaskLog {
    pub(crate) store: Arc<Store>,
}

/// Followers of a log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Readers {
    /// Attached now.
    pub attached: usize,
    /// Attached ever: tells a reader that came and went from none at all.
    pub ever: u64,
}

/// Entries at fixed places. A chunk never moves and an entry never changes once it is set.
#[derive(Debug)]
pub(crate) struct Chunk {
    entries: [OnceLock<Arc<Entry>>; CHUNK_ENTRIES],
}

#[derive(Debug)]
pub(crate) struct Store {
    chunks: RwLock<Vec<Arc<Chunk>>>,
    /// Entries written; followers wait on it.
    pub(crate) len: watch::Sender<u64>,
    pub(crate) readers: watch::Sender<Readers>,
    terminal: OnceLock<Arc<Entry>>,
    bytes: AtomicUsize,
}

impl TaskLog {
    /// A new log and its only writer. Chunks that would take the log over `limit_bytes` are
    /// refused; a terminal entry always fits.
    #[must_use]
    pub fn new(limit_bytes: usize) -> (Self, LogWriter) {
        let store = Arc::new(Store {
            chunks: RwLock::default(),
            len: watch::Sender::new(0),
            readers: watch::Sender::new(Readers::default()),
            terminal: OnceLock::new(),
            bytes: AtomicUsize::new(0),
        });
        (Self { store: Arc::clone(&store) }, LogWriter::new(store, limit_bytes))
    }

    /// A reader of everything after `after`, or of everything. It counts as attached until it is
    /// dropped.
    #[must_use]
    pub fn follow(&self, after: Option<Position>) -> Follower {
        Follower::new(Arc::clone(&self.store), after.map_or(0, |p| p.0.saturating_add(1)))
    }

    /// How many followers there are; wakes when one comes or goes.
    #[must_use]
    pub fn readers(&self) -> watch::Receiver<Readers> {
        self.store.readers.subscribe()
    }

    /// Whether there is an entry at a position.
    #[must_use]
    pub fn holds(&self, position: Position) -> bool {
        position.0 < self.entries_len()
    }

    /// Entries so far.
    #[must_use]
    pub fn entries_len(&self) -> u64 {
        *self.store.len.borrow()
    }

    /// Bytes so far, as counted against the limit.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.store.bytes.load(Ordering::Relaxed)
    }

    /// The last entry, once there is one.
    #[must_use]
    pub fn terminal(&self) -> Option<Arc<Entry>> {
        self.store.terminal.get().map(Arc::clone)
    }
}

impl Store {
    /// Called by the one writer only.
    pub(crate) fn push(&self, at: u64, entry: Entry) {
        self.bytes.fetch_add(entry.weight(), Ordering::Relaxed);
        let entry = Arc::new(entry);
        let chunk = self.chunk_at(at).unwrap_or_else(|| self.grow());
        // Both are set for the first and only time: the writer never uses a place twice, and its
        // terminal entry consumes it. This order, entry, end, wake, is what followers rely on.
        let _ = chunk.entries[slot(at)].set(Arc::clone(&entry));
        if entry.is_terminal() {
            let _ = self.terminal.set(entry);
        }
        self.len.send_replace(at + 1);
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.terminal.get().is_some()
    }

    pub(crate) fn chunk_at(&self, at: u64) -> Option<Arc<Chunk>> {
        let number = usize::try_from(at / CHUNK_ENTRIES as u64).ok()?;
        self.chunks.read().unwrap_or_else(PoisonError::into_inner).get(number).map(Arc::clone)
    }

    fn grow(&self) -> Arc<Chunk> {
        let chunk = Arc::new(Chunk { entries: [const { OnceLock::new() }; CHUNK_ENTRIES] });
        self.chunks.write().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&chunk));
        chunk
    }
}

impl Chunk {
    pub(crate) fn get(&self, at: u64) -> Option<&Arc<Entry>> {
        self.entries[slot(at)].get()
    }

    pub(crate) fn is_last(at: u64) -> bool {
        slot(at) == CHUNK_ENTRIES - 1
    }
}

fn slot(at: u64) -> usize {
    (at % CHUNK_ENTRIES as u64) as usize
}
