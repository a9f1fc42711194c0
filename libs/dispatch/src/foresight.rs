//! What a pool foresees for its waiting tasks: their place, when they start, whether they can be in
//! time, and when a full queue has places again.

use std::sync::Arc;
use std::time::Duration;

use registry::Snapshot;
use tokio::time::Instant;
use wire::event::Queued;

use crate::Limits;
use crate::core::TaskCore;
use crate::estimate::{Before, Slot};
use crate::pool::{Pool, waiting};
use crate::queue::{Ahead, Queue};

/// What is foreseen for a task.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Foreseen {
    /// Tasks that go first.
    pub(crate) position: u32,
    /// `None` while nothing was measured or no engine is up.
    pub(crate) start: Option<Predicted>,
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
    /// A waiting task's place, now.
    pub(crate) fn queued(&self, core: &TaskCore, snapshot: &Snapshot) -> Option<Queued> {
        let queue = self.lock_queue();
        let foreseen = self.foresee(&queue, core, snapshot)?;
        let predicted_start_ms = foreseen.start.and_then(|start| u64::try_from(start.told.as_millis()).ok());
        Some(Queued { position: foreseen.position, predicted_start_ms })
    }

    /// The same for whoever holds the queue. `None` for a task that does not wait.
    pub(crate) fn foresee(
        &self,
        queue: &Queue<Arc<TaskCore>>,
        core: &TaskCore,
        snapshot: &Snapshot,
    ) -> Option<Foreseen> {
        let ahead = queue.ahead_of(core.place)?;
        let position = u32::try_from(ahead.position).unwrap_or(u32::MAX);
        Some(Foreseen { position, start: self.start(core, queue, ahead, snapshot) })
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
        let look = |queue: &Queue<_>| self.start(core, queue, queue.ahead_of(core.place)?, snapshot);
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

    fn start(
        &self,
        core: &TaskCore,
        queue: &Queue<Arc<TaskCore>>,
        ahead: Ahead,
        snapshot: &Snapshot,
    ) -> Option<Predicted> {
        let (total, free) = self.slots(snapshot);
        let now = Instant::now();
        let busy = |(since, core): &(Instant, Arc<TaskCore>)| Slot::Busy {
            asked: core.asked,
            size: core.size,
            held: now.saturating_duration_since(*since).as_secs_f64(),
        };
        let free = std::iter::repeat_n(Slot::Free, free as usize);
        let slots: Vec<Slot> = {
            let running = self.lock_running();
            let known = free.chain(running.values().map(busy));
            known.chain(std::iter::repeat(Slot::Strange)).take(total as usize).collect()
        };
        let tasks = queue.first_ones().map(|waiting| (waiting.item.asked, waiting.size));
        let before = Before { position: ahead.position, total: ahead.total, tasks };
        let estimator = self.lock_estimator();
        let queue = estimator.start(&slots, before)?;
        Some(Predicted { queue, told: estimator.corrected(&core.caller, core.place.priority, queue) })
    }
}

/// At least one, so that nobody is told to come back at once.
pub(crate) fn whole_seconds(wait: f64, limits: &Limits) -> Duration {
    Duration::from_secs_f64(wait.ceil().clamp(1.0, limits.retry_after_max.as_secs_f64().max(1.0)))
}
