//! Admission: everything that a task passes between its submission and its place in a queue.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;
use wire::TaskId;

use crate::core::{NewTask, TaskCore};
use crate::dispatcher::Shared;
use crate::durable::{Entrusted, Recorded};
use crate::ending::{Ending, Failure};
use crate::estimate::Asked;
use crate::foresight::{Late, whole_seconds};
use crate::place::Wish;
use crate::pool::{NotQueued, Pool};
use crate::queue::{NoPlace, Place};
use crate::watchers::watch_connection;
use crate::{AdmissionError, Detach, Task, TaskSpec};

impl Shared {
    /// Gives a task its place, or says why it gets none.
    pub(crate) fn admit(
        self: &Arc<Self>,
        pool: &Arc<Pool>,
        spec: TaskSpec,
        durable: bool,
    ) -> Result<Task, AdmissionError> {
        if self.shutdown.is_cancelled() || self.drained.is_cancelled() {
            return Err(AdmissionError::ShuttingDown);
        }
        let wish = Wish::new(&pool.id, spec.placement.as_ref())?;
        let deadline = spec.deadline.unwrap_or_default();
        // Held from the look-up to the insertion: of a thousand equal submissions one is admitted.
        let mut store = self.lock_store();
        if let Some(known) = spec.task_id.as_ref().and_then(|id| store.own(id, &spec.owner)) {
            return self.repeated(Arc::clone(known), &spec);
        }
        self.check_journal(durable)?;
        let now = Instant::now();
        if let Some(id) = &spec.session {
            let spent = self.sessions.check(&spec.owner, id, now);
            spent.map_err(|spent| AdmissionError::SessionSpent { session: id.clone(), spent })?;
        }
        let id = spec.task_id.clone().unwrap_or_else(TaskId::generate);
        let durable = durable && self.journal.get().is_some();
        let entrusted = if durable { Some(Entrusted::new(&id, &pool.id, &spec)?) } else { None };
        let recorded = if durable { Recorded::Pending } else { Recorded::NotNeeded };
        let core = Arc::new(self.new_task(pool, spec, wish, id, recorded));
        self.check_quota(pool, &core).inspect_err(|_| core.discard())?;
        let dropped = pool.admit(&core, &self.registry.snapshot()).map_err(|not_queued| {
            core.discard();
            self.quotas.give_back(&core.caller, core.size);
            self.refusal(pool, deadline, not_queued)
        })?;
        store.insert(Arc::clone(&core));
        if let Some(id) = &core.session {
            self.sessions.turn(&core.owner, id, now);
        }
        drop(store);
        match entrusted {
            Some(entrusted) => self.entrust(&core, entrusted),
            None => _ = core.metrics().enqueued.inc(),
        }
        self.moved(&core);
        if let Some(dropped) = dropped {
            let retry_after = pool.retry_after(&self.registry.snapshot(), &self.limits);
            self.end(&dropped, Ending::Failed(Failure::dropped(retry_after)));
        }
        if core.detach == Detach::AtOnce {
            self.tracker.spawn(watch_connection(Arc::clone(self), Arc::clone(&core)));
        }
        pool.wake.notify_one();
        Ok(self.task(core, true))
    }

    /// Charges the task's caller for it, if it may ask for more.
    fn check_quota(&self, pool: &Pool, core: &TaskCore) -> Result<(), AdmissionError> {
        let permit =
            self.quotas.admit(&core.caller, core.size, core.admitted).map_err(|(reached, wait)| {
                // One of its own tasks must end first.
                let wait = wait.map(|wait| wait.as_secs_f64());
                let wait = wait.or_else(|| pool.lock_estimator().service(core.size)).unwrap_or(1.0);
                AdmissionError::RateLimited { reached, retry_after: whole_seconds(wait, &self.limits) }
            })?;
        core.holds(permit);
        Ok(())
    }

    fn repeated(self: &Arc<Self>, known: Arc<TaskCore>, spec: &TaskSpec) -> Result<Task, AdmissionError> {
        if known.fingerprint == spec.fingerprint {
            Ok(self.task(known, false))
        } else {
            Err(AdmissionError::Conflict { task_id: known.id.clone() })
        }
    }

    fn new_task(
        &self,
        pool: &Arc<Pool>,
        spec: TaskSpec,
        wish: Wish,
        id: TaskId,
        recorded: Recorded,
    ) -> TaskCore {
        let seq = self.next_seq.fetch_add(1, Ordering::Relaxed);
        let log = self.new_log(seq, recorded);
        let task = self.describe(pool, spec, wish, (id, seq, recorded));
        TaskCore::new(task, log, &self.limits)
    }

    /// What a task is made of; its id and its number are given.
    pub(crate) fn describe(
        &self,
        pool: &Arc<Pool>,
        spec: TaskSpec,
        wish: Wish,
        (id, seq, recorded): (TaskId, u64, Recorded),
    ) -> NewTask {
        let asked = Asked::of(&spec.request, spec.priority, spec.tokens_in, pool.spec().ctx);
        NewTask {
            id,
            owner: spec.owner,
            caller: spec.caller,
            fingerprint: spec.fingerprint,
            session: spec.session,
            pool: Arc::clone(pool),
            place: Place { priority: spec.priority, seq },
            wish,
            detach: spec.detach,
            admitted: Instant::now(),
            deadline: spec.deadline,
            asked,
            size: pool.lock_estimator().expect(&asked),
            request: spec.request,
            recorded,
            on_interrupt: spec.on_interrupt,
            transcript: spec.transcript,
            trace: spec.trace,
            spans: self.spans.get().cloned(),
        }
    }

    fn refusal(&self, pool: &Pool, deadline: Duration, not_queued: NotQueued) -> AdmissionError {
        let (id, capacity) = (pool.id.clone(), pool.spec().queue.capacity);
        let retry_after = || pool.retry_after(&self.registry.snapshot(), &self.limits);
        match not_queued {
            NotQueued::NoPlace(NoPlace::Closed) => AdmissionError::ShuttingDown,
            NotQueued::NoPlace(NoPlace::Full { waiting }) => {
                AdmissionError::QueueFull { pool: id, waiting, capacity, retry_after: retry_after() }
            }
            NotQueued::NoPlace(NoPlace::OverShare { held }) => {
                AdmissionError::OverShare { pool: id, held, capacity, retry_after: retry_after() }
            }
            NotQueued::Late(Late { start, service }) => {
                AdmissionError::DeadlineUnmet { pool: id, deadline, start, service }
            }
        }
    }
}
