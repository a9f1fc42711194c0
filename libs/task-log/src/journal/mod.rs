//! The record on disk of accepted tasks, in two speeds: what was accepted and how it ended in a
//! store that commits before it answers; events in files that are written before readers see them
//! and synced at most every 100 ms.
//!
//! A directory of its own:
//!
//! ```text
//! tasks.redb              what was accepted, how it ended; see `table`
//! events/00000001.events  events of all tasks in the order they came; see `segment`
//! prompts/00000001.prompts  prompts of tasks that wait or run; see `prompts`
//! ```
//!
//! Two threads own the files: one writes events, unless somebody [drives](Journal::drive) that, one syncs
//! and commits. Knows nothing of what a
//! task is: records, prompts and summaries are opaque. After the process was killed everything that
//! a reader has seen is there; after a power cut the last 100 ms of events may be missing.

mod check;
mod committer;
mod error;
mod event_queue;
mod events;
pub(crate) mod files;
mod gaps;
mod health;
mod inbox;
mod ledger;
mod prompts;
mod recover;
mod repair;
mod segment;
mod space;
mod table;

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::value::RawValue;

pub use check::{Check, check};
pub use error::{JournalError, Unrecorded};
pub(crate) use event_queue::Appender;
pub use gaps::{Gap, lost_behind};
pub use inbox::{Admission, Done};
pub use recover::{Recovered, RecoveredEnd};
pub use repair::repair;
pub use space::Space;

use crate::lives::Life;
use crate::{Entry, HeldLog, LogWriter, TaskLog};
use event_queue::{EventQueue, Item, WriterLock};
use events::EventWriter;
use health::Health;
use inbox::{Ended, Inbox};

/// How event files are named.
const EVENT_KIND: &str = "events";

/// The journal's numbers.
#[derive(Debug, Clone)]
pub struct Options {
    /// Time between two syncs of events: what a power cut may cost; 100 ms.
    pub sync_every: Duration,
    /// Size at which an event file is followed by the next; 8 MiB.
    pub file_bytes: u64,
    /// The disk.
    pub space: Space,
}

impl Default for Options {
    fn default() -> Self {
        Self { sync_every: Duration::from_millis(100), file_bytes: 8 * 1024 * 1024, space: Space::default() }
    }
}

/// A journal that is open. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Journal {
    inner: Arc<Inner>,
}

/// What was found when a journal was opened.
#[derive(Debug)]
pub struct Opened {
    /// The journal.
    pub journal: Journal,
    /// Every task in it, in the order of their numbers.
    pub tasks: Vec<Recovered>,
    /// A number that no task in it has had, nor any later one.
    pub next_seq: u64,
}

struct Inner {
    queue: Arc<EventQueue>,
    writer: Arc<WriterLock<EventWriter>>,
    inbox: Arc<Inbox>,
    health: Arc<Health>,
    threads: Mutex<Option<[JoinHandle<()>; 2]>>,
    /// The number of this process among those that have opened the journal: that of its first event file,
    /// whose name is on disk before anything is said, and which no later one has.
    life: u64,
    /// Who has said what of tasks that are not restored yet.
    lives: Mutex<HashMap<u64, Vec<Life>>>,
}

impl Journal {
    /// Opens the journal of a directory, or begins one. Blocks.
    pub fn open(dir: &Path, options: Options) -> Result<Opened, JournalError> {
        recover::open(dir, options)
    }

    /// Whether it can be written, as far as is known. While it cannot, admissions are refused.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.inner.health.is_good()
    }

    /// A new log whose entries are on disk, but for a sync, before readers see them.
    #[must_use]
    pub fn log(&self, seq: u64, limit_bytes: usize) -> (TaskLog, LogWriter) {
        TaskLog::recorded_by(Some(self.appender(seq)), limit_bytes)
    }

    /// The log of a task that was read back, and its writer unless it has ended.
    #[must_use]
    pub fn restore(&self, seq: u64, entries: Vec<Entry>, limit_bytes: usize) -> (TaskLog, Option<LogWriter>) {
        let found = self.inner.lives.lock().unwrap_or_else(PoisonError::into_inner).remove(&seq);
        let (lives, own) = (found.unwrap_or_default(), self.inner.life);
        let (log, writer) = TaskLog::restored(Some(self.appender(seq)), limit_bytes, entries, lives, own);
        self.inner.queue.push(Item::Restored { seq, log: Arc::downgrade(&log.store) });
        (log, writer)
    }

    /// Records an accepted task; `done` is called once it is on disk, or cannot be.
    pub fn admit(&self, admission: Admission, done: Done) {
        if !self.is_writable() {
            return done(Err(Unrecorded));
        }
        if let Err(done) = self.inner.inbox.admit(admission, done) {
            done(Err(Unrecorded));
        }
    }

    /// Records how a task ended; its log must have ended, and its admission be recorded: a prompt that
    /// came behind the end would stay. The prompt goes.
    pub fn ended(&self, seq: u64, log: &TaskLog, summary: Box<RawValue>) {
        let events = log.store.written_to_the_end();
        self.inner.queue.push(Item::Ended(Ended { seq, events, at_ms: now_ms(), summary }));
    }

    /// Lets go of a task: nothing of it is found by the next start.
    pub fn forget(&self, seq: u64) {
        self.inner.queue.push(Item::Forget { seq });
    }

    /// Takes a log away from its readers, as [`HeldLog::let_go`], once the journal needs it no more. Its task
    /// must have been [forgotten](Self::forget) before: what is on disk of a task must be all of it.
    pub fn let_go(&self, log: &HeldLog) {
        if let Some(log) = log.store.upgrade() {
            self.inner.queue.push(Item::LetGo { log });
        }
    }

    /// Writes events where this is polled for as long as it is, instead of waking a thread for each and
    /// being woken by it: for the runtime that appends and reads. One at a time; never resolves. A write is
    /// one into memory; after one that was not the thread writes again for a while.
    pub async fn drive(&self) {
        event_queue::drive(&self.inner.queue, &self.inner.writer).await;
    }

    /// Writes and syncs everything and gives the directory up. What comes after it is not recorded.
    /// Blocks; to be called once nothing runs any more.
    pub fn close(&self) {
        let threads = self.inner.threads.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some([events, committer]) = threads else { return };
        self.inner.queue.close();
        let events = events.join();
        self.inner.inbox.close();
        if committer.join().is_err() || events.is_err() {
            tracing::error!("a thread of the journal has panicked; the next start finds what it had written");
        }
    }

    fn appender(&self, seq: u64) -> Appender {
        Appender { queue: Arc::clone(&self.inner.queue), seq }
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("writable", &self.is_writable()).finish_non_exhaustive()
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
