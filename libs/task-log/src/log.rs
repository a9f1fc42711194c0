//! The log: where entries are kept and how followers are woken.
//!
//! An entry is put in its place first and published after. A log that is not recorded publishes at
//! once; of one that is, the journal publishes what it has written.

#[cfg(not(loom))]
use std::sync::RwLock;
#[cfg(not(loom))]
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, PoisonError};

// The models try every interleaving of these.
#[cfg(loom)]
use loom::sync::{RwLock, atomic::AtomicUsize};
use tokio::sync::watch;

use crate::journal::Appender;
use crate::lives::{Life, Lives};
use crate::published::Published;
use crate::{Behind, Entry, Follower, LogWriter, Position};

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
struct Last {
    /// Entries there are when it is told.
    len: u64,
    entry: Arc<Entry>,
    /// It is the last of these entries. If not, the log goes on in another process.
    ends: bool,
}

/// What stood before a chunk.
#[derive(Debug, Clone, Copy, Default)]
struct Before {
    bytes: usize,
    token_events: u64,
}

/// In the order in which it stands here: what a token touches lies together, because with thousands of logs
/// none of it is in a cache when the next one comes.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Store {
    /// Entries that may be read.
    pub(crate) published: Published,
    bytes: AtomicUsize,
    /// What its readers are told last.
    last: OnceLock<Last>,
    /// Which process has said what.
    pub(crate) lives: Lives,
    chunks: RwLock<Vec<Arc<Chunk>>>,
    /// Of each chunk, of a log that was let go of.
    let_go: OnceLock<Box<[Before]>>,
    pub(crate) readers: watch::Sender<Readers>,
}

impl TaskLog {
    /// A new log and its only writer, in memory only. Chunks that would take the log over
    /// `limit_bytes` are refused; a terminal entry always fits.
    #[must_use]
    pub fn new(limit_bytes: usize) -> (Self, LogWriter) {
        Self::recorded_by(None, limit_bytes)
    }

    pub(crate) fn recorded_by(appender: Option<Appender>, limit_bytes: usize) -> (Self, LogWriter) {
        let store = Arc::new(Store::default());
        (Self { store: Arc::clone(&store) }, LogWriter::new(store, limit_bytes, appender))
    }

    /// A log that was read back, with what earlier processes have said of it, and its writer unless it has
    /// ended; what that writes is said by the process `number`.
    pub(crate) fn restored(
        appender: Option<Appender>,
        limit_bytes: usize,
        entries: Vec<Entry>,
        mut lives: Vec<Life>,
        number: u64,
    ) -> (Self, Option<LogWriter>) {
        if !entries.last().is_some_and(Entry::is_terminal) {
            lives.push(Life { number, start: entries.len() as u64 });
        }
        let store = Arc::new(Store { lives: Lives::new(lives), ..Store::default() });
        let indices = entries.iter().filter(|e| matches!(e, Entry::Chunk { index: Some(_), .. })).count();
        let (mut len, mut chunk) = (0, None);
        for entry in entries {
            store.put(len, entry, &mut chunk);
            len += 1;
        }
        store.publish(len);
        let ended = store.last.get().is_some();
        let log = Self { store: Arc::clone(&store) };
        let writer = LogWriter::new(store, limit_bytes, appender).at(len, indices as u64);
        if ended {
            writer.discard();
            return (log, None);
        }
        (log, Some(writer))
    }

    /// A reader of everything after `after`, or of everything. What is after an entry that was lost with
    /// the process that had appended it is what a later one has put in its place. It counts as attached
    /// until it is dropped.
    #[must_use]
    pub fn follow(&self, after: Option<Position>) -> Follower {
        let next = |after: Position| self.next_after(after).unwrap_or_else(|| after.at.saturating_add(1));
        Follower::new(Arc::clone(&self.store), after.map_or(0, next))
    }

    /// How many followers there are; wakes when one comes or goes.
    #[must_use]
    pub fn readers(&self) -> watch::Receiver<Readers> {
        self.store.readers.subscribe()
    }

    /// Whether readers may have seen an entry of this name, also one that was lost.
    #[must_use]
    pub fn gave_out(&self, position: Position) -> bool {
        self.next_after(position).is_some()
    }

    fn next_after(&self, position: Position) -> Option<u64> {
        self.store.lives.next_after(position, self.entries_len())
    }

    /// Entries that may be read so far.
    #[must_use]
    pub fn entries_len(&self) -> u64 {
        self.store.published.len()
    }

    /// Bytes so far, as counted against the limit.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.store.bytes.load(Ordering::Relaxed)
    }

    /// The last entry, once there is one; readers of a recorded log may see it a moment later.
    #[must_use]
    pub fn terminal(&self) -> Option<Arc<Entry>> {
        self.store.last.get().filter(|last| last.ends).map(|last| Arc::clone(&last.entry))
    }

    /// What the readers of a log are told that was put off; it has no position, and followers do not
    /// meet it.
    #[must_use]
    pub fn put_off(&self) -> Option<Arc<Entry>> {
        self.store.last.get().filter(|last| !last.ends).map(|last| Arc::clone(&last.entry))
    }

    /// Waits until the last entry may be read: whoever follows from then on sees all there is.
    pub async fn settled(&self) {
        let store = &self.store;
        store.published.until(|| store.ends_at(store.published.len())).await;
    }
}

impl Default for Store {
    fn default() -> Self {
        Self {
            chunks: RwLock::default(),
            let_go: OnceLock::new(),
            published: Published::default(),
            readers: watch::Sender::new(Readers::default()),
            last: OnceLock::new(),
            bytes: AtomicUsize::new(0),
            lives: Lives::default(),
        }
    }
}

impl Store {
    /// Puts an entry in its place, in a `chunk` that its one writer keeps from one to the next. Nobody reads it
    /// before [`Store::publish`].
    pub(crate) fn put(&self, at: u64, entry: Entry, chunk: &mut Option<Arc<Chunk>>) -> Arc<Entry> {
        self.bytes.fetch_add(entry.weight(), Ordering::Relaxed);
        let entry = Arc::new(entry);
        if Chunk::is_first(at) {
            *chunk = None;
        }
        let chunk = chunk.get_or_insert_with(|| self.chunk_at(at).unwrap_or_else(|| self.grow()));
        // Both are set for the first and only time: the writer never uses a place twice, and its
        // terminal entry consumes it. This order, entry, end, publish, is what followers rely on.
        let _ = chunk.entries[slot(at)].set(Arc::clone(&entry));
        if entry.is_terminal() {
            let _ = self.last.set(Last { len: at + 1, entry: Arc::clone(&entry), ends: true });
        }
        entry
    }

    /// Lets followers go when they have read the first `len` entries. Nothing is put behind them here.
    pub(crate) fn put_off(&self, len: u64, last_words: Entry) {
        let _ = self.last.set(Last { len, entry: Arc::new(last_words), ends: false });
        // Those that have read all wait for more.
        self.published.wake();
    }

    /// Lets readers see the first `len` entries.
    pub(crate) fn publish(&self, len: u64) {
        self.published.up_to(len);
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Entries there are, of a log that has ended.
    pub(crate) fn written_to_the_end(&self) -> u64 {
        self.last.get().map_or_else(|| self.published.len(), |last| last.len)
    }

    /// Whether nothing follows the first `len` entries.
    pub(crate) fn ends_at(&self, len: u64) -> bool {
        self.last.get().is_some_and(|last| len >= last.len)
    }

    /// Takes the entries of a log that has ended away. A reader keeps the chunk that it is in.
    pub(crate) fn let_go(&self) {
        if !self.last.get().is_some_and(|last| last.ends) {
            return;
        }
        let chunks = self.chunks.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut before = Before::default();
        let sums = chunks.iter().map(|chunk| {
            let with = before.and(chunk);
            std::mem::replace(&mut before, with)
        });
        let sums = sums.collect();
        // Told before they are gone, so that whoever misses them learns it.
        if self.let_go.set(sums).is_ok() {
            drop(std::mem::take(&mut *self.chunks.write().unwrap_or_else(PoisonError::into_inner)));
        }
    }

    pub(crate) fn is_let_go(&self) -> bool {
        self.let_go.get().is_some()
    }

    /// What a reader misses of a log that was let go of, from this entry on.
    pub(crate) fn behind(&self, next: u64) -> Option<Behind> {
        let chunks = self.let_go.get()?;
        let entries = self.last.get()?.len.checked_sub(next).filter(|entries| *entries > 0)?;
        let before = chunks.get(chunk_of(next)?)?;
        let bytes = self.bytes().saturating_sub(before.bytes);
        Some(Behind { entries, bytes, token_events: before.token_events })
    }

    pub(crate) fn entry(&self, at: u64) -> Option<Arc<Entry>> {
        self.chunk_at(at)?.get(at).map(Arc::clone)
    }

    pub(crate) fn chunk_at(&self, at: u64) -> Option<Arc<Chunk>> {
        let number = chunk_of(at)?;
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

    /// The first entry of the chunk that this one is in.
    pub(crate) fn first_beside(at: u64) -> u64 {
        at - slot(at) as u64
    }

    pub(crate) fn is_first(at: u64) -> bool {
        slot(at) == 0
    }

    pub(crate) fn is_last(at: u64) -> bool {
        slot(at) == CHUNK_ENTRIES - 1
    }
}

impl Before {
    fn and(self, chunk: &Chunk) -> Self {
        let with = |before: Self, entry: &Arc<Entry>| Self {
            bytes: before.bytes + entry.weight(),
            token_events: before.token_events
                + u64::from(matches!(**entry, Entry::Chunk { index: Some(_), .. })),
        };
        chunk.entries.iter().filter_map(OnceLock::get).fold(self, with)
    }
}

fn chunk_of(at: u64) -> Option<usize> {
    usize::try_from(at / CHUNK_ENTRIES as u64).ok()
}

fn slot(at: u64) -> usize {
    (at % CHUNK_ENTRIES as u64) as usize
}
