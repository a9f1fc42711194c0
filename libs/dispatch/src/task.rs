//! A task as its owner holds it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use task_log::TaskLog;
use tokio::sync::watch;
use tokio::time::Instant;
use wire::event::Queued;
use wire::task::TaskView;
use wire::{PoolId, SessionId, TaskId};

use crate::core::TaskCore;
use crate::dispatcher::Shared;
use crate::ending::{CancelReason, Ending, millis};
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
        &self.core.pool.id
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
    told: Option<(Queued, Instant)>,
}

impl QueuePlace {
    /// The place now; `None` for a task that does not wait.
    #[must_use]
    pub fn now(&self) -> Option<Queued> {
        self.task.core.pool.queued(&self.task.core, &self.task.shared.registry.snapshot())
    }

    /// The place if its position is another one than was told last, or its start is expected at
    /// another time; at first in any case.
    pub fn news(&mut self) -> Option<Queued> {
        let place = self.now()?;
        self.news_of(place)
    }

    fn news_of(&mut self, place: Queued) -> Option<Queued> {
        let now = Instant::now();
        let told = self.told.as_ref();
        let news = told.is_none_or(|(told, at)| is_news(told, &place, now.saturating_duration_since(*at)));
        news.then(|| {
            self.told = Some((place.clone(), now));
            place
        })
    }

    /// Waits for [`Self::news`]. `None` as soon as the task does not wait any more. Cancel-safe.
    pub async fn changed(&mut self) -> Option<Queued> {
        loop {
            // Marked as seen before looking, so that no move in between is missed.
            self.moved.borrow_and_update();
            let place = self.now()?;
            if let Some(news) = self.news_of(place) {
                return Some(news);
            }
            self.moved.changed().await.ok()?;
        }
    }
}

/// Whether a place differs from the one that was told `since` ago by more than its reader can see
/// for itself: another position, or a start that has moved by a quarter of the wait and a second.
fn is_news(told: &Queued, now: &Queued, since: Duration) -> bool {
    let moved = |(told, now): (u64, u64)| {
        let start = now.saturating_add(millis(since));
        start.abs_diff(told) > (told / 4).max(1_000)
    };
    let starts = told.predicted_start_ms.zip(now.predicted_start_ms);
    told.position != now.position
        || told.predicted_start_ms.is_some() != now.predicted_start_ms.is_some()
        || starts.is_some_and(moved)
}

impl Shared {
    pub(crate) fn view(&self, core: &TaskCore) -> TaskView {
        let mut view = core.view();
        if view.state == wire::TaskState::Queued {
            let snapshot = self.registry.snapshot();
            view.queue_position = core.pool.queued(core, &snapshot).map(|queued| queued.position);
            view.placement = Some(place(&snapshot, &core.wish, None, |_, _| true).words)
                .filter(|words| words.starts_with("waits"));
        }
        view
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ORCHD-ETA-002
    #[test]
    fn a_place_is_told_again_when_it_or_its_start_has_moved() {
        let place = |position, predicted_start_ms| Queued { position, predicted_start_ms };
        let news = |told: (u32, Option<u64>), now: (u32, Option<u64>), seconds| {
            is_news(&place(told.0, told.1), &place(now.0, now.1), Duration::from_secs(seconds))
        };
        assert!(news((3, None), (2, None), 0));
        assert!(news((3, None), (3, Some(5_000)), 0), "the first estimate is news");
        assert!(!news((3, Some(9_000)), (3, Some(5_000)), 4), "time went by as foreseen");
        assert!(news((3, Some(9_000)), (3, Some(9_000)), 4), "it is late");
        assert!(!news((3, Some(900)), (3, Some(100)), 0), "less than a second is not worth a word");
    }
}
