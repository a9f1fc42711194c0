//! Taking back what an earlier process had accepted: with ids, numbers, owners and events, in order.
//! Tasks that had ended can be read; those that waited wait again; one that ran goes on behind what
//! it had said, as if its engine had been lost, or says that it was cut off.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use adapter_host::EngineRequest;
use task_log::Entry;
use task_log::journal::{Gap, Journal, Opened, Recovered};
use tokio::time::Instant;
use wire::config::QueueConfig;
use wire::task::TaskView;
use wire::{ErrorCode, PoolId, TaskState};

use crate::core::{AfterLoss, NewTask, TaskCore, nothing};
use crate::dispatcher::Shared;
use crate::durable::Recorded;
use crate::ending::{Ending, Failure};
use crate::place::Wish;
use crate::pool::Pool;
use crate::record::{self, Restored};
use crate::{Dispatch, PoolSpec};

/// Why tasks of an earlier process go on.
const RESTARTED: &str = "orchestratord was restarted";
/// And why one does that had said more than what is left of it.
const RESTARTED_TORN: &str = "orchestratord was restarted, and events of the task were lost in its journal";

/// What became of an earlier process's tasks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TakenBack {
    /// They wait again.
    pub waiting: usize,
    /// They could not go on, and their streams say so.
    pub interrupted: usize,
    /// They had ended, and can be read.
    pub ended: usize,
}

impl Dispatch {
    /// Records tasks from now on and takes back those that were found. To be called once, before
    /// anything is submitted.
    pub fn restore(&self, opened: Opened) -> TakenBack {
        let Opened { journal, tasks, next_seq } = opened;
        let shared = &self.shared;
        shared.next_seq.store(next_seq, Ordering::Relaxed);
        let journal = shared.journal.get_or_init(|| journal);
        let (mut ended, live): (Vec<_>, Vec<_>) = tasks.into_iter().partition(|task| task.end.is_some());
        // Retention lets go in the order in which they ended.
        ended.sort_by_key(|task| task.end.as_ref().map(|end| end.at));
        let mut taken = TakenBack::default();
        let mut gone = BTreeMap::new();
        for task in ended {
            taken.ended += usize::from(shared.restore_ended(journal, task, &mut gone).is_some());
        }
        let swept = shared.lock_store().sweep(&shared.limits);
        shared.let_go(swept);
        for task in live {
            match shared.restore_live(journal, task) {
                Some(true) => taken.waiting += 1,
                Some(false) => taken.interrupted += 1,
                None => {}
            }
        }
        taken
    }
}

impl Shared {
    fn restore_ended(
        self: &Arc<Self>,
        journal: &Journal,
        task: Recovered,
        gone: &mut BTreeMap<PoolId, Arc<Pool>>,
    ) -> Option<()> {
        let restored = read_back(&task, nothing())?;
        let Recovered { seq, entries, end, .. } = task;
        let end = end?;
        let told = end.summary.and_then(|json| serde_json::from_str::<TaskView>(json.get()).ok());
        let view = told.unwrap_or_else(|| view_of(&restored, &entries));
        // A pool that is not there any more is none to list: it only stands in the task's view.
        let make = || Arc::new(Pool::assumed(stranger(&restored.pool), &self.limits, &self.metrics));
        let pool = self
            .pool(&restored.pool)
            .unwrap_or_else(|| Arc::clone(gone.entry(restored.pool.clone()).or_insert_with(make)));
        let (log, _) = journal.restore(seq, entries, self.limits.task_log_bytes);
        let core = Arc::new(TaskCore::past(self.describe_restored(&pool, seq, restored), log, view));
        let mut store = self.lock_store();
        store.insert(Arc::clone(&core));
        store.ended_ago(&core, SystemTime::now().duration_since(end.at).unwrap_or_default());
        Some(())
    }

    /// Whether the task goes on.
    fn restore_live(self: &Arc<Self>, journal: &Journal, mut task: Recovered) -> Option<bool> {
        let prompt = task.prompt.take();
        let request = prompt.and_then(|prompt| serde_json::from_slice::<EngineRequest>(&prompt).ok());
        let readable = request.is_some();
        let restored = read_back(&task, request.unwrap_or_else(nothing))?;
        // A pool that no configuration names may be known by a handoff in a moment, and has no name
        // to be asked for by until then.
        let make = || self.keep_pool(Pool::assumed(stranger(&restored.pool), &self.limits, &self.metrics));
        let pool = self.pool(&restored.pool).unwrap_or_else(make);
        let Recovered { seq, entries, gap, .. } = task;
        let past = entries.clone();
        let (log, writer) = journal.restore(seq, entries, self.limits.task_log_bytes);
        let new = self.describe_restored(&pool, seq, restored);
        let core = Arc::new(TaskCore::new(new, (log, writer?), &self.limits));
        let reason = if gap.is_some() { RESTARTED_TORN } else { RESTARTED };
        let fate = core.take_over(&past, gap.is_some(), reason, &self.limits);
        core.holds(self.quotas.take_over(&core.caller, core.size, Instant::now()));
        self.lock_store().insert(Arc::clone(&core));
        let kept = tokens_of(&past);
        let cut_off = || if gap.is_some() { Failure::lost_behind(kept) } else { Failure::cut_off() };
        if gap.is_some() {
            tracing::warn!(task = %core.id, kept, "events of a task behind its first tokens are lost in the journal");
        }
        let ending = match (readable, fate) {
            // What had ended needs no prompt.
            _ if gap == Some(Gap::BeforeItsEnd) => Ending::Failed(cut_off()),
            (false, _) => Ending::Failed(Failure::unreadable()),
            (true, AfterLoss::Again | AfterLoss::Anew) => match pool.take_over(&core) {
                Ok(()) => return Some(true),
                Err(_) => Ending::Failed(Failure::interrupted()),
            },
            (true, AfterLoss::Spent) => {
                let shared = Arc::clone(self);
                self.tracker.spawn(async move { shared.finish(&core, Ending::Spent).await });
                return Some(false);
            }
            (true, AfterLoss::GiveUp(Some(why))) => Ending::Failed(cut_off().because(why)),
            (true, AfterLoss::GiveUp(None) | AfterLoss::Ended) => Ending::Failed(cut_off()),
        };
        self.end(&core, ending);
        Some(false)
    }

    fn describe_restored(&self, pool: &Arc<Pool>, seq: u64, restored: Restored) -> NewTask {
        let Restored { id, spec, age, .. } = restored;
        // It was checked when it was admitted.
        let wish = Wish::new(&pool.id, spec.placement.as_ref())
            .unwrap_or_else(|_| Wish { pool: pool.id.clone(), replica: None });
        let now = Instant::now();
        let admitted = now.checked_sub(age).unwrap_or(now);
        NewTask { admitted, ..self.describe(pool, spec, wish, (id, seq, Recorded::Yes)) }
    }
}

fn read_back(task: &Recovered, request: EngineRequest) -> Option<Restored> {
    record::read(&task.record, request)
        .inspect_err(|error| {
            tracing::error!(number = task.seq, %error, "a task in the journal is not taken back; it stays there");
        })
        .ok()
}

/// Token events among a task's entries.
fn tokens_of(entries: &[Entry]) -> u64 {
    entries.iter().filter(|entry| matches!(entry, Entry::Chunk { index: Some(_), .. })).count() as u64
}

fn stranger(id: &PoolId) -> PoolSpec {
    PoolSpec {
        id: id.clone(),
        aliases: Vec::new(),
        model_names: Vec::new(),
        model_ref: String::new(),
        ctx: 0,
        queue: QueueConfig::default(),
        deterministic: false,
    }
}

/// What is to be seen of a task whose end was not summed up: its process died right after it.
fn view_of(task: &Restored, entries: &[Entry]) -> TaskView {
    let started = entries.iter().find_map(|entry| match entry {
        Entry::Started(started) => Some(started),
        _ => None,
    });
    let state = match entries.last() {
        Some(Entry::End(end)) if end.finish_reason == wire::event::FinishReason::Cancelled => {
            TaskState::Cancelled
        }
        Some(Entry::End(_)) => TaskState::Done,
        Some(Entry::Error(error)) if error.code != ErrorCode::Interrupted => TaskState::Failed,
        _ => TaskState::Interrupted,
    };
    let mut view = TaskView {
        task_id: task.id.clone(),
        state,
        pool_id: task.pool.clone(),
        replica_id: started.map(|started| started.replica_id.clone()),
        priority: task.spec.priority,
        queue_position: None,
        queue_ms: started.map(|started| started.queue_ms),
        decode_time_ms: None,
        tokens_in: None,
        tokens_out: None,
        finish_reason: None,
        error: None,
        receipt: None,
        result: None,
        placement: None,
    };
    if let Some(Entry::End(end)) = entries.last() {
        view.decode_time_ms = Some(end.decode_time_ms);
        view.tokens_out = Some(end.tokens_out);
    }
    view
}
