//! What waits for the committer.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::value::RawValue;

use super::error::Unrecorded;

/// A task to be recorded as accepted.
#[derive(Debug)]
pub struct Admission {
    /// Its number: unique and growing for as long as the journal exists.
    pub seq: u64,
    /// What is needed to run it again but for its prompt; opaque here.
    pub record: Box<RawValue>,
    /// Its prompt; opaque here, and overwritten when the task has ended.
    pub prompt: Vec<u8>,
}

/// Called once, on the journal's thread: it must not wait.
pub type Done = Box<dyn FnOnce(Result<(), Unrecorded>) + Send>;

/// A task that has ended, to be recorded once its events are on disk.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) seq: u64,
    pub(crate) events: u64,
    pub(crate) at_ms: u64,
    pub(crate) summary: Box<RawValue>,
}

/// A file of events that has grown.
#[derive(Debug, Clone)]
pub(crate) struct Grown {
    pub(crate) file: Arc<File>,
    pub(crate) length: u64,
    /// Nothing more is written to it.
    pub(crate) sealed: bool,
}

/// What is done once the events written before are on disk.
#[derive(Debug, Default)]
pub(crate) struct AfterSync {
    pub(crate) grown: BTreeMap<u64, Grown>,
    pub(crate) ended: Vec<Ended>,
    pub(crate) forgotten: Vec<u64>,
    /// Files of events that nothing needs any more.
    pub(crate) idle: Vec<u64>,
    /// Files of events whose sync had failed, and of which everything now stands in others that have grown.
    pub(crate) rewritten: Vec<u64>,
}

/// One round of the committer.
pub(crate) enum Round {
    /// Commit these now.
    Admit(Vec<(Admission, Done)>),
    /// Sync, then commit.
    Sync(AfterSync),
    /// The same, for the last time, after these.
    Last(Vec<(Admission, Done)>, AfterSync),
    /// Nothing came in the time given.
    Idle,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Inbox {
    waiting: Mutex<Waiting>,
    wake: Condvar,
}

#[derive(Default)]
struct Waiting {
    admissions: Vec<(Admission, Done)>,
    after_sync: AfterSync,
    /// Since when something waits for a sync.
    since: Option<Instant>,
    closed: bool,
}

impl Inbox {
    /// Admits; gives the call back when the journal is closed.
    pub(crate) fn admit(&self, admission: Admission, done: Done) -> Result<(), Done> {
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(done);
        }
        waiting.admissions.push((admission, done));
        let first = waiting.admissions.len() == 1;
        drop(waiting);
        if first {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Adds to what waits for the next sync.
    pub(crate) fn after_sync(&self, add: impl FnOnce(&mut AfterSync)) {
        let mut waiting = self.lock();
        add(&mut waiting.after_sync);
        let first = waiting.since.is_none();
        waiting.since.get_or_insert_with(Instant::now);
        drop(waiting);
        if first {
            self.wake.notify_one();
        }
    }

    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_one();
    }

    /// Waits for work. Admissions do not wait for a sync that is not due; a sync comes at most every
    /// `sync_every`.
    pub(crate) fn next(&self, sync_every: Duration, idle: Duration) -> Round {
        let mut waiting = self.lock();
        let give_up = Instant::now() + idle;
        loop {
            let now = Instant::now();
            let due = waiting.since.map(|since| since + sync_every);
            if waiting.closed {
                let last = std::mem::take(&mut waiting.after_sync);
                return Round::Last(std::mem::take(&mut waiting.admissions), last);
            }
            if due.is_some_and(|due| due <= now) {
                waiting.since = None;
                return Round::Sync(std::mem::take(&mut waiting.after_sync));
            }
            if !waiting.admissions.is_empty() {
                return Round::Admit(std::mem::take(&mut waiting.admissions));
            }
            if give_up <= now {
                return Round::Idle;
            }
            let until = due.unwrap_or(give_up).min(give_up);
            let waited = self.wake.wait_timeout(waiting, until - now);
            waiting = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AfterSync {
    /// Puts back what could not be done, before what came meanwhile.
    pub(crate) fn prepend(&mut self, mut before: Self) {
        for (number, grown) in std::mem::take(&mut self.grown) {
            before.grown.insert(number, grown);
        }
        before.ended.append(&mut self.ended);
        before.forgotten.append(&mut self.forgotten);
        before.idle.append(&mut self.idle);
        before.rewritten.append(&mut self.rewritten);
        *self = before;
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").finish_non_exhaustive()
    }
}
