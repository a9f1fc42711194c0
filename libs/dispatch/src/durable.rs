//! Tasks that outlive this process: recorded before they are acknowledged, and when they have ended.
//!
//! A task waits in its queue while it is recorded and may even begin, but nobody can see it: a task
//! that cannot be recorded has never been.

use std::sync::Arc;

use serde_json::value::{RawValue, to_raw_value};
use task_log::journal::{Admission, Unrecorded};
use task_log::{Journal, LogWriter, TaskLog};
use wire::{PoolId, TaskId};

use crate::core::TaskCore;
use crate::dispatcher::Shared;
use crate::ending::{Ending, Failure};
use crate::store::Swept;
use crate::{AdmissionError, Dispatch, Task, TaskSpec, record};

/// Whether a task is in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recorded {
    /// It need not be: it is its client's connection.
    NotNeeded,
    /// Not yet.
    Pending,
    /// It is.
    Yes,
    /// It could not be.
    Refused,
}

impl Recorded {
    /// Whether anybody may know of the task.
    pub(crate) fn is_settled(self) -> bool {
        matches!(self, Self::NotNeeded | Self::Yes)
    }
}

/// What is recorded of a task when it is admitted.
pub(crate) struct Entrusted {
    record: Box<RawValue>,
    prompt: Vec<u8>,
}

impl Entrusted {
    pub(crate) fn new(id: &TaskId, pool: &PoolId, spec: &TaskSpec) -> Result<Self, AdmissionError> {
        // Both are made of numbers and texts; a float that is no number was refused at the edge.
        let unrecorded = |error: serde_json::Error| {
            tracing::error!(task = %id, %error, "a task cannot be written as JSON");
            AdmissionError::Unrecorded
        };
        let prompt = serde_json::to_vec(&spec.request).map_err(unrecorded)?;
        Ok(Self { record: record::write(id, pool, spec).map_err(unrecorded)?, prompt })
    }
}

impl Dispatch {
    /// Admits a task that outlives this process: it is on disk when this returns. Without a journal
    /// it is as [`Dispatch::submit`].
    pub async fn submit_durably(&self, spec: TaskSpec) -> Result<Task, AdmissionError> {
        let task = self.take(spec, true)?;
        let mut recorded = task.core.recorded.subscribe();
        // The sender lives as long as the task that we hold.
        let settled = recorded.wait_for(|recorded| *recorded != Recorded::Pending).await;
        if settled.is_ok_and(|recorded| *recorded == Recorded::Refused) {
            let error = AdmissionError::Unrecorded;
            self.shared.metrics.rejected(Some(&task.core.pool.id), error.reason());
            return Err(error);
        }
        Ok(task)
    }
}

impl Shared {
    /// Whether a new task of this kind can be taken at all.
    pub(crate) fn check_journal(&self, durable: bool) -> Result<(), AdmissionError> {
        match self.journal.get().filter(|_| durable) {
            Some(journal) if !journal.is_writable() => Err(AdmissionError::Unrecorded),
            _ => Ok(()),
        }
    }

    /// A log that is recorded when its task is.
    pub(crate) fn new_log(&self, seq: u64, recorded: Recorded) -> (TaskLog, LogWriter) {
        match self.journal.get().filter(|_| recorded != Recorded::NotNeeded) {
            Some(journal) => journal.log(seq, self.limits.task_log_bytes),
            None => TaskLog::new(self.limits.task_log_bytes),
        }
    }

    /// Has an admitted task recorded; whoever submitted it is woken by the outcome.
    pub(crate) fn entrust(self: &Arc<Self>, core: &Arc<TaskCore>, entrusted: Entrusted) {
        let Some(journal) = self.journal.get() else { return };
        let Entrusted { record, prompt } = entrusted;
        let (shared, core) = (Arc::clone(self), Arc::clone(core));
        let seq = core.place.seq;
        let done = move |outcome: Result<(), Unrecorded>| match outcome {
            Ok(()) => {
                core.metrics().enqueued.inc();
                if !core.settle_alive(Recorded::Yes) {
                    shared.record_early_end(&core);
                    core.settle(Recorded::Yes);
                }
                shared.moved(&core);
            }
            Err(Unrecorded) => shared.refuse(&core),
        };
        journal.admit(Admission { seq, record, prompt }, Box::new(done));
    }

    /// A task that could not be recorded ends and is forgotten; then its submitter is told. It was never
    /// admitted, so no counter, usage or session knows of it.
    fn refuse(&self, core: &Arc<TaskCore>) {
        let closed = self.close(core, &Ending::Failed(Failure::interrupted()));
        if let Some(id) = &core.session {
            self.sessions.take_back(&core.owner, id);
        }
        self.lock_store().remove(core);
        self.forget(core.place.seq);
        if let Some((_, _, last)) = closed {
            core.announce(last);
        }
        core.settle(Recorded::Refused);
    }

    /// The process goes down: a task that the next one can go on with is let go of, with nothing in its
    /// log, as if it had been killed; its readers are told. Any other ends.
    pub(crate) fn interrupt(&self, core: &TaskCore) {
        let kept = self.journal.get().is_some_and(Journal::is_writable);
        if core.put_off(kept) {
            core.pool.leave(core);
        } else {
            self.end(core, Ending::Failed(Failure::interrupted()));
        }
    }

    /// Records how a task ended, if its admission is recorded: an end that came to the journal first would
    /// leave the prompt that comes behind it. Until then it is left to whoever hears of the admission.
    pub(crate) fn record_end(&self, core: &TaskCore) {
        if *core.recorded.borrow() == Recorded::Yes {
            self.tell_end(core);
        }
    }

    /// Records the end of a task that was over before its admission was, and lets go of it where it has been
    /// let go of by then.
    fn record_early_end(&self, core: &TaskCore) {
        self.tell_end(core);
        if !self.lock_store().holds(core) {
            self.forget(core.place.seq);
        }
    }

    fn tell_end(&self, core: &TaskCore) {
        let Some(journal) = self.journal.get() else { return };
        let summary = to_raw_value(&core.view()).unwrap_or_else(|_| RawValue::NULL.to_owned());
        journal.ended(core.place.seq, &core.log, summary);
    }

    fn forget(&self, seq: u64) {
        if let Some(journal) = self.journal.get() {
            journal.forget(seq);
        }
    }

    /// Lets go on disk of tasks that are let go of in memory, and then of what their readers hold too much of.
    pub(crate) fn let_go(&self, swept: Swept) {
        swept.recorded.into_iter().for_each(|seq| self.forget(seq));
        for unread in swept.unread {
            match self.journal.get().filter(|_| unread.recorded) {
                Some(journal) => journal.let_go(&unread.log),
                None => unread.log.let_go(),
            }
        }
    }
}
