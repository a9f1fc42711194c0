//! What a pool foresees for its waiting tasks: their place, when they start, whether they can be in
//! time, and when a full queue has places again.

use std::sync::Arc;
use std::time::Duration;

use registry::Snapshot;
use tokio::time::Instant;
use wire::event::Queued;

use crate::Limits;
use crate::core::TaskCore;
use crate::estimate::{Asked, Before, Estimator, Slot};
use crate::pool::{Pool, waiting};
use crate::queue::{Ahead, Queue};
use crate::size::Size;

/// What stands before a waiting task.
struct Standing {
    ahead: Ahead,
    slots: Vec<Slot>,
    /// In order, as many of them as are looked at one by one.
    tasks: Vec<(Asked, Size)>,
}

/// Time until a task starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Predicted {
    /// If nothing else came.
    pub(crate) queue: Duration,
    /// With what comes as a rule.
    pub(crate) told: Duration,
}

/// A task that cannot be in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Late {
    pub(crate) start: Duration,
    pub(crate) service: Duration,
}

impl Pool {
    /// A waiting task's place, now. The queue is locked while it is looked at, and not while the start is
    /// worked out: of those who watch their places there may be as many as wait.
    pub(crate) fn queued(&self, core: &TaskCore, snapshot: &Snapshot) -> Option<Queued> {
        let before = self.before(&self.lock_queue(), core, snapshot)?;
        let position = u32::try_from(before.ahead.position).unwrap_or(u32::MAX);
        let start = self.start(core, before);
        let predicted_start_ms = start.and_then(|start| u64::try_from(start.told.as_millis()).ok());
        Some(Queued { position, predicted_start_ms })
    }

    /// When a task starts that has just been queued, for whoever holds the queue.
    pub(crate) fn foresee(
        &self,
        queue: &Queue<Arc<TaskCore>>,
        core: &TaskCore,
        snapshot: &Snapshot,
    ) -> Option<Predicted> {
        self.start(core, self.before(queue, core, snapshot)?)
    }

    /// What makes a task late that has not been queued yet, if it has a deadline and enough is known.
    pub(crate) fn late(
        &self,
        queue: &mut Queue<Arc<TaskCore>>,
        core: &Arc<TaskCore>,
        snapshot: &Snapshot,
    ) -> Option<Late> {
        let deadline = core.deadline?.saturating_duration_since(core.admitted);
        if deadline.is_zero() {
            return Some(Late { start: Duration::ZERO, service: Duration::ZERO });
        }
        if !self.lock_estimator().may_refuse(core.admitted) {
            return None;
        }
        let look = |queue: &Queue<_>| self.foresee(queue, core, snapshot);
        let start = queue.as_if_with(core.place, waiting(core), look)?.told;
        let service = Duration::from_secs_f64(self.lock_estimator().service(core.size)?);
        (start + service > deadline).then_some(Late { start, service })
    }

    /// When a place in a full queue is likely: the time in which an eighth of it drains, because
    /// the clients that were turned away together come back together. Whole seconds, 1 to the limit.
    pub(crate) fn retry_after(&self, snapshot: &Snapshot, limits: &Limits) -> Duration {
        let (slots, _) = self.slots(snapshot);
        let (total, waiting) = {
            let queue = self.lock_queue();
            (queue.total(), queue.len().max(1))
        };
        let eighth = self.spec().queue.capacity.div_ceil(8).max(1);
        let wait = match self.lock_estimator().service(total) {
            Some(service) if slots > 0 => service / waiting as f64 * f64::from(eighth) / f64::from(slots),
            _ => limits.retry_after_unmeasured.as_secs_f64(),
        };
        whole_seconds(wait, limits)
    }

    /// What stands before a task; `None` for one that does not wait.
    fn before(&self, queue: &Queue<Arc<TaskCore>>, core: &TaskCore, snapshot: &Snapshot) -> Option<Standing> {
        let ahead = queue.ahead_of(core.place)?;
        let now = Instant::now();
        let (total, free) = self.slots_to_count_on(snapshot, now);
        let busy = |(since, core): &(Instant, Arc<TaskCore>)| Slot::Busy {
            asked: core.asked,
            size: core.size,
            held: now.saturating_duration_since(*since).as_secs_f64(),
        };
        let free = std::iter::repeat_n(Slot::Free, free as usize);
        let slots = if free.len() > ahead.position {
            // One of these is its own, whatever the thousands that may be running do.
            free.take(ahead.position + 1).collect()
        } else {
            let running = self.lock_running();
            let known = free.chain(running.values().map(busy));
            known.chain(std::iter::repeat(Slot::Strange)).take(total as usize).collect()
        };
        let wanted = Estimator::looks_at(ahead.position);
        let tasks = queue.first_ones().take(wanted).map(|waiting| (waiting.item.asked, waiting.size));
        Some(Standing { ahead, slots, tasks: tasks.collect() })
    }

    fn start(&self, core: &TaskCore, before: Standing) -> Option<Predicted> {
        let Standing { ahead, slots, tasks } = before;
        let estimator = self.lock_estimator();
        let before = Before { position: ahead.position, total: ahead.total, tasks: tasks.into_iter() };
        let queue = estimator.start(&slots, before)?;
        Some(Predicted { queue, told: estimator.corrected(&core.caller, core.place.priority, queue) })
    }
}

/// At least one, so that nobody is told to come back at once.
pub(crate) fn whole_seconds(wait: f64, limits: &Limits) -> Duration {
    Duration::from_secs_f64(wait.ceil().clamp(1.0, limits.retry_after_max.as_secs_f64().max(1.0)))
}
