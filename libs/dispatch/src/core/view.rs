//! A task as its owner sees it.

use task_log::Entry;
use wire::task::TaskView;
use wire::{ErrorBody, TaskState};

use super::TaskCore;
use super::live::State;
use crate::ending::millis;

impl TaskCore {
    /// What is shown of it, but for its place in the queue.
    pub(crate) fn view(&self) -> TaskView {
        let state = self.lock();
        let (shown, history, words) = match &*state {
            State::Live(live) if live.running => (TaskState::Running, &live.history, true),
            State::Live(live) => (TaskState::Queued, &live.history, false),
            // As it was until its end is told, with all that belongs to it.
            State::Ending(history) if history.run.is_some() => (TaskState::Running, &**history, true),
            State::Ending(history) => (TaskState::Queued, &**history, false),
            State::Ended { state, history } => (*state, &**history, true),
            State::Past(view) => {
                let mut view = TaskView::clone(view);
                self.add_outcome(&mut view);
                return view;
            }
        };
        let run = history.run.as_ref().filter(|_| words);
        let mut view = TaskView {
            task_id: self.id.clone(),
            state: shown,
            pool_id: self.pool.id.clone(),
            replica_id: run.map(|run| run.key.replica.clone()),
            priority: self.place.priority,
            queue_position: None,
            queue_ms: history.queue.map(millis),
            decode_time_ms: history.decode.map(millis),
            tokens_in: None,
            tokens_out: history.tokens_out,
            finish_reason: None,
            error: None,
            receipt: None,
            result: None,
            placement: run.map(|run| run.words.clone()),
        };
        drop(state);
        self.add_outcome(&mut view);
        view
    }

    fn add_outcome(&self, view: &mut TaskView) {
        match self.log.terminal().as_deref() {
            Some(Entry::End(end)) => {
                view.tokens_in = end.tokens_in;
                view.finish_reason = Some(end.finish_reason);
                view.receipt = Some(end.receipt.clone());
            }
            Some(Entry::Error(error)) => {
                let mut body = ErrorBody::new(error.code, error.message.clone()).pool(view.pool_id.clone());
                body.retriable = error.retriable;
                body.retry_after_ms = error.retry_after_ms;
                body.hint.clone_from(&error.hint);
                view.error = Some(body);
            }
            _ => {}
        }
    }
}
