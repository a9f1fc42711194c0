//! The tasks one may ask about: all that live, and the ended ones for as long as there is room.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use tokio::time::Instant;
use wire::TaskId;

use crate::Limits;
use crate::core::TaskCore;

#[derive(Debug, Default)]
pub(crate) struct Store {
    by_id: HashMap<TaskId, Arc<TaskCore>>,
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
    pub(crate) fn get(&self, id: &TaskId) -> Option<&Arc<TaskCore>> {
        self.by_id.get(id)
    }

    pub(crate) fn newest_first(&self) -> impl Iterator<Item = &Arc<TaskCore>> {
        self.by_seq.values().rev()
    }

    pub(crate) fn insert(&mut self, core: Arc<TaskCore>) {
        self.by_seq.insert(core.place.seq, Arc::clone(&core));
        self.by_id.insert(core.id.clone(), core);
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
                self.by_id.remove(&core.id);
            }
            self.ended.pop_front();
        }
    }
}
