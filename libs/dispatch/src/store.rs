//! The tasks one may ask about: all that live, and the ended ones for as long as there is room.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use wire::TaskId;

use crate::core::TaskCore;
use crate::unkept::{Unkept, Unread};
use crate::{Limits, Owner};

#[derive(Debug, Default)]
pub(crate) struct Store {
    /// Each owner has ids of its own, so that nobody learns from an id that it is taken. Under one
    /// id at most one task per owner, oldest first.
    by_id: HashMap<TaskId, Vec<Arc<TaskCore>>>,
    /// By admission, oldest first.
    by_seq: BTreeMap<u64, Arc<TaskCore>>,
    /// Ended tasks, in the order in which they ended.
    ended: VecDeque<Ended>,
    ended_bytes: usize,
    unkept: Unkept,
}

/// What there was too much of.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct Swept {
    /// Tasks that are not kept any more, and that the journal keeps.
    pub(crate) recorded: Vec<u64>,
    /// Logs that their readers may not hold any more.
    pub(crate) unread: Vec<Unread>,
}

#[derive(Debug)]
struct Ended {
    at: Instant,
    bytes: usize,
    seq: u64,
}

impl Store {
    /// The newest task of this id that `owner` may know of.
    pub(crate) fn get(&self, id: &TaskId, owner: &Owner) -> Option<&Arc<TaskCore>> {
        self.by_id.get(id)?.iter().rev().find(|core| owner.sees(&core.owner))
    }

    /// The task that `owner` itself has submitted under this id.
    pub(crate) fn own(&self, id: &TaskId, owner: &Owner) -> Option<&Arc<TaskCore>> {
        self.by_id.get(id)?.iter().find(|core| core.owner == *owner)
    }

    /// The task of this number.
    pub(crate) fn numbered(&self, seq: u64) -> Option<&Arc<TaskCore>> {
        self.by_seq.get(&seq)
    }

    pub(crate) fn newest_first(&self) -> impl Iterator<Item = &Arc<TaskCore>> {
        self.by_seq.values().rev()
    }

    pub(crate) fn insert(&mut self, core: Arc<TaskCore>) {
        self.by_seq.insert(core.place.seq, Arc::clone(&core));
        self.by_id.entry(core.id.clone()).or_default().push(core);
    }

    /// Counts a task among the ended ones, and lets go of the oldest that are too many; says which.
    pub(crate) fn has_ended(&mut self, core: &TaskCore, limits: &Limits) -> Swept {
        self.ended_ago(core, Duration::ZERO);
        self.sweep(limits)
    }

    /// Counts a task that ended so long ago; to be called in the order in which they ended.
    pub(crate) fn ended_ago(&mut self, core: &TaskCore, age: Duration) {
        let bytes = core.log.bytes();
        self.ended_bytes += bytes;
        let now = Instant::now();
        let at = now.checked_sub(age).unwrap_or(now);
        self.ended.push_back(Ended { at, bytes, seq: core.place.seq });
    }

    /// Lets go of what is too much or too old, and says what that is.
    pub(crate) fn sweep(&mut self, limits: &Limits) -> Swept {
        let mut recorded = Vec::new();
        let now = Instant::now();
        while let Some(oldest) = self.ended.front() {
            let too_many = self.ended.len() > limits.kept_tasks || self.ended_bytes > limits.kept_bytes;
            let too_old = now.saturating_duration_since(oldest.at) >= limits.kept_for;
            if !too_many && !too_old {
                break;
            }
            self.ended_bytes = self.ended_bytes.saturating_sub(oldest.bytes);
            let (seq, bytes) = (oldest.seq, oldest.bytes);
            if let Some(core) = self.by_seq.remove(&seq) {
                self.forget(&core);
                recorded.extend(core.is_durable().then_some(seq));
                let unread = Unread::of(&core, bytes);
                // What is held from here on is held by others.
                drop(core);
                self.unkept.add(unread);
            }
            self.ended.pop_front();
        }
        Swept { recorded, unread: self.unkept.beyond(limits.unread_bytes) }
    }

    /// Whether a task is kept.
    pub(crate) fn holds(&self, core: &TaskCore) -> bool {
        self.by_seq.contains_key(&core.place.seq)
    }

    /// Lets go of a task that was never told of.
    pub(crate) fn remove(&mut self, core: &TaskCore) {
        self.by_seq.remove(&core.place.seq);
        self.forget(core);
    }

    fn forget(&mut self, core: &TaskCore) {
        if let Some(tasks) = self.by_id.get_mut(&core.id) {
            tasks.retain(|task| task.place.seq != core.place.seq);
            if tasks.is_empty() {
                self.by_id.remove(&core.id);
            }
        }
    }
}
