//! A task as its owner holds it.

use std::fmt;
use std::sync::Arc;

use task_log::TaskLog;
use tokio::sync::watch;
use wire::event::Queued;
use wire::task::TaskView;
use wire::{PoolId, SessionId, TaskId};

use crate::core::TaskCore;
use crate::dispatcher::Shared;
use crate::ending::{CancelReason, Ending};
use crate::place::place;

/// A handle on a task. Dropping it changes nothing: what a missing reader means is the task's
/// [`crate::Detach`].
#[derive(Clone)]
pub struct Task {
    pub(crate) shared: Arc<Shared>,
    pub(crate) core: Arc<TaskCore>,
    /// False when this submission repeated an earlier one and got its task.
    pub created_now: bool,
}

impl Task {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> &TaskId {
        &self.core.id
    }

    /// The pool it was admitted to.
    #[must_use]
    pub fn pool(&self) -> &PoolId {
        &self.core.pool.spec.id
    }

    /// The session it belongs to.
    #[must_use]
    pub fn session(&self) -> Option<&SessionId> {
        self.core.session.as_ref()
    }

    /// Its events.
    #[must_use]
    pub fn log(&self) -> &TaskLog {
        &self.core.log
    }

    /// Everything there is to see of it.
    #[must_use]
    pub fn view(&self) -> TaskView {
        self.shared.view(&self.core)
    }

    /// Its place in the queue, now and as it changes.
    #[must_use]
    pub fn queue_place(&self) -> QueuePlace {
        QueuePlace { moved: self.core.pool.moved(), task: self.clone(), told: None }
    }

    /// Cancels it: when this returns its log has ended, so no token follows. A queued task leaves
    /// its queue; a running one lets go of its stream and slot at once. Does nothing to a task that
    /// has ended.
    pub fn cancel(&self) {
        self.shared.end(&self.core, Ending::Cancelled(CancelReason::Requested));
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").field("id", &self.core.id).finish_non_exhaustive()
    }
}

/// A waiting task's place in its queue.
#[derive(Debug)]
pub struct QueuePlace {
    task: Task,
    moved: watch::Receiver<u64>,
    told: Option<Queued>,
}

impl QueuePlace {
    /// The place now; `None` for a task that does not wait.
    #[must_use]
    pub fn now(&self) -> Option<Queued> {
        self.task.core.pool.queued(&self.task.core, &self.task.shared.registry.snapshot())
    }

    /// The place when its position is another one than was told last; at first at once. `None` as
    /// soon as the task does not wait any more. Cancel-safe.
    pub async fn changed(&mut self) -> Option<Queued> {
        loop {
            // Marked as seen before looking, so that no move in between is missed.
            self.moved.borrow_and_update();
            let now = self.now()?;
            if self.told.as_ref().is_none_or(|told| told.position != now.position) {
                self.told = Some(now.clone());
                return Some(now);
            }
            self.moved.changed().await.ok()?;
        }
    }
}

impl Shared {
    pub(crate) fn view(&self, core: &TaskCore) -> TaskView {
        let mut view = core.view();
        if view.state == wire::TaskState::Queued {
            let snapshot = self.registry.snapshot();
            view.queue_position = core.pool.queued(core, &snapshot).map(|queued| queued.position);
            view.placement = Some(place(&snapshot, &core.wish, |_, _| true).words)
                .filter(|words| words.starts_with("waits"));
        }
        view
    }
}
