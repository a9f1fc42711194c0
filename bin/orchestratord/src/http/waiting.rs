//! A reader of a task's events that is also told how the task waits. What it is told so says how things stand
//! now; it has no id and is not replayed.

use std::sync::Arc;

use bytes::Bytes;
use dispatch::QueuePlace;
use futures_util::StreamExt as _;
use tokio::sync::watch;
use wire::{PoolView, PreparationStep, TaskState};

use super::events::Events;
use super::{sse, tasks};

pub(super) struct Waiting {
    events: Events,
    place: QueuePlace,
    pools: watch::Receiver<Arc<Vec<PoolView>>>,
    told_steps: Vec<PreparationStep>,
}

impl Waiting {
    pub(super) fn new(events: Events) -> Self {
        let (place, pools) = (events.task.queue_place(), events.state.pools.subscribe());
        Self { events, place, pools, told_steps: Vec::new() }
    }

    pub(super) async fn next(&mut self) -> Option<Bytes> {
        let mut news = Vec::new();
        loop {
            let waiting = self.events.task.view().state == TaskState::Queued;
            if waiting {
                self.tell_waiting(&mut news);
            }
            if !news.is_empty() {
                self.events.silence.sent();
                return Some(Bytes::from(news));
            }
            tokio::select! {
                biased;
                bytes = self.events.next() => return bytes,
                Some(queued) = self.place.changed(), if waiting => {
                    sse::put_frame(&mut news, None, "queued", &queued);
                }
                Ok(()) = self.pools.changed(), if waiting => {}
            }
        }
    }

    fn tell_waiting(&mut self, news: &mut Vec<u8>) {
        if let Some(queued) = self.place.news() {
            sse::put_frame(news, None, "queued", &queued);
        }
        self.pools.mark_unchanged();
        let steps = tasks::preparation(&self.events.state, self.events.task.pool());
        for step in tasks::moved(&self.told_steps, &steps) {
            sse::put_frame(news, None, "prep", &step);
        }
        self.told_steps = steps;
    }
}
