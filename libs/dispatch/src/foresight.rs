//! What a pool foresees for its waiting tasks: their place, when they start, whether they can be in
//! time, and when a full queue has places again.

use std::sync::Arc;
use std::time::Duration;

use registry::Snapshot;
use tokio::time::Instant;
use wire::event::Queued;

use crate::Limits;
use crate::core::TaskCore;
use crate::pool::{Pool, waiting};
use crate::queue::Queue;
use crate::size::Size;

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
        let position = u32::try_from(ahead.len()).unwrap_or(u32::MAX);
        Some(Foreseen { position, start: self.start_after(core, &ahead, snapshot) })
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
        let ahead = queue.would_be_ahead_of(core.place, waiting(core));
        let start = self.start_after(core, &ahead, snapshot)?.told;
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

    fn start_after(&self, core: &TaskCore, ahead: &[Size], snapshot: &Snapshot) -> Option<Predicted> {
        let (total, free) = self.slots(snapshot);
        let running = self.lock_running();
        let estimator = self.lock_estimator();
        let now = Instant::now();
        let left = |(since, core): &(Instant, Arc<TaskCore>)| {
            let held = now.saturating_duration_since(*since).as_secs_f64();
            estimator.left(&core.asked, core.size, held)
        };
        let busy: Vec<f64> = running.values().map(left).collect::<Option<_>>()?;
        let free = std::iter::repeat_n(0.0, free as usize);
        // A slot may be in use by nobody we know of.
        let strangers = (total as usize).saturating_sub(free.len() + busy.len());
        let strange = std::iter::repeat_n(estimator.service(Size::default())?, strangers);
        let ahead: Option<Vec<f64>> = ahead.iter().map(|size| estimator.service(*size)).collect();
        let slots = free.chain(busy).chain(strange).take(total as usize);
        let queue = crate::estimate::start_after(slots, ahead?.into_iter())?;
        Some(Predicted { queue, told: estimator.corrected(&core.caller, core.place.priority, queue) })
    }
}

/// At least one, so that nobody is told to come back at once.
pub(crate) fn whole_seconds(wait: f64, limits: &Limits) -> Duration {
    Duration::from_secs_f64(wait.ceil().clamp(1.0, limits.retry_after_max.as_secs_f64().max(1.0)))
}
