//! Real slots: at most `--parallel` generations at once, the others wait their turn. A slot is a
//! lease, so a connection that is dropped frees it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// What a stub has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Generations that hold a slot.
    pub busy: u32,
    /// Generations that wait for one.
    pub waiting: u32,
    /// Generations that ended by themselves.
    pub finished: u64,
    /// Generations whose client went away, or that a fault ended.
    pub cancelled: u64,
    /// Tokens generated, over all.
    pub tokens: u64,
}

pub(crate) struct Slots {
    free: Arc<Semaphore>,
    table: Mutex<Vec<Slot>>,
    stats: watch::Sender<Stats>,
    ctx: u32,
}

#[derive(Default, Clone)]
struct Slot {
    busy: bool,
    task: u64,
    prompt_tokens: u64,
    decoded: u64,
    limit: Option<u64>,
}

/// A slot for one generation.
pub(crate) struct Lease {
    pub(crate) id: usize,
    slots: Arc<Slots>,
    finished: bool,
    _permit: OwnedSemaphorePermit,
}

impl Slots {
    pub(crate) fn new(parallel: u32, ctx: u32) -> Arc<Self> {
        let count = parallel as usize;
        Arc::new(Self {
            free: Arc::new(Semaphore::new(count)),
            table: Mutex::new(vec![Slot::default(); count]),
            stats: watch::Sender::new(Stats::default()),
            ctx,
        })
    }

    pub(crate) fn stats(&self) -> watch::Receiver<Stats> {
        self.stats.subscribe()
    }

    /// Waits for a slot, first come first served. `None` only when the stub is going down.
    pub(crate) async fn acquire(self: Arc<Self>, prompt_tokens: u64, limit: Option<u64>) -> Option<Lease> {
        let waiting = Waiting::new(&self);
        let permit = Arc::clone(&self.free).acquire_owned().await.ok()?;
        drop(waiting);
        let id = {
            let mut table = self.table();
            let id = table.iter().position(|slot| !slot.busy)?;
            let task = table.iter().map(|slot| slot.task).max().unwrap_or(0) + 1;
            table[id] = Slot { busy: true, task, prompt_tokens, decoded: 0, limit };
            id
        };
        self.stats.send_modify(|stats| stats.busy += 1);
        Some(Lease { id, slots: self, finished: false, _permit: permit })
    }

    /// As `/slots` shows them.
    pub(crate) fn view(&self) -> Value {
        let table = self.table();
        let slots = table.iter().enumerate().map(|(id, slot)| {
            let mut view = json!({
                "id": id, "n_ctx": self.ctx, "speculative": false, "is_processing": slot.busy,
            });
            if slot.task > 0 {
                view["id_task"] = json!(slot.task);
                view["n_prompt_tokens"] = json!(slot.prompt_tokens + slot.decoded);
                view["n_prompt_tokens_processed"] = json!(slot.prompt_tokens);
                view["n_prompt_tokens_cache"] = json!(0);
                let remain = slot.limit.map_or(-1, |limit| limit.saturating_sub(slot.decoded) as i64);
                view["next_token"] = json!([{
                    "has_next_token": slot.busy, "has_new_line": false,
                    "n_remain": remain, "n_decoded": slot.decoded,
                }]);
            }
            view
        });
        slots.collect()
    }

    fn table(&self) -> MutexGuard<'_, Vec<Slot>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    pub(crate) fn decoded(&self) {
        self.slots.table()[self.id].decoded += 1;
        self.slots.stats.send_modify(|stats| stats.tokens += 1);
    }

    pub(crate) fn finish(&mut self) {
        self.finished = true;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.slots.table()[self.id].busy = false;
        self.slots.stats.send_modify(|stats| {
            stats.busy -= 1;
            if self.finished {
                stats.finished += 1;
            } else {
                stats.cancelled += 1;
            }
        });
    }
}

/// Counts a waiting generation for as long as it waits, also when its client leaves.
struct Waiting<'a>(&'a Slots);

impl<'a> Waiting<'a> {
    fn new(slots: &'a Slots) -> Self {
        slots.stats.send_modify(|stats| stats.waiting += 1);
        Self(slots)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.stats.send_modify(|stats| stats.waiting -= 1);
    }
}
