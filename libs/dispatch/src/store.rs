//! The tasks one may ask about: all that live, and the ended ones for as long as there is room.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use tokio::time::Instant;
use wire::TaskId;

use crate::core::TaskCore;
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

    pub(crate) fn newest_first(&self) -> impl Iterator<Item = &Arc<TaskCore>> {
        self.by_seq.values().rev()
    }

    pub(crate) fn insert(&mut self, core: Arc<TaskCore>) {
        self.by_seq.insert(core.place.seq, Arc::clone(&core));
        self.by_id.entry(core.id.clone()).or_default().push(core);
    }

    /// Counts a task among the ended ones, and lets go of the oldest that are too many.
    pub(crate) fn has_ended(&mut self, core: &TaskCore, limits: &Limits) {
        let bytes = core.log.bytes();
        self.ended_bytes += bytes;
        self.ended.push_back(Ended { at: Instant::now(), bytes, seq: core.place.seq });
        self.sweep(limits);
    }

    /// Lets go of what is too much or too old.
    pub(crate) fn sweep(&mut self, limits: &Limits) {
        let now = Instant::now();
        while let Some(oldest) = self.ended.front() {
            let too_many = self.ended.len() > limits.kept_tasks || self.ended_bytes > limits.kept_bytes;
            let too_old = now.saturating_duration_since(oldest.at) >= limits.kept_for;
            if !too_many && !too_old {
                return;
            }
            self.ended_bytes = self.ended_bytes.saturating_sub(oldest.bytes);
            let core = self.by_seq.remove(&oldest.seq);
            if let Some(core) = core {
                self.forget(&core);
            }
            self.ended.pop_front();
        }
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
