//! `GET /v2/tasks/{id}/events`: a task's log as server-sent events, from any position.
//!
//! What has an `id:` is in the log and can be resumed from. Verbose extras (`queued`, `prep`,
//! `metrics`) say how things stand now; they have no id and are not replayed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::Response;
use bytes::Bytes;
use dispatch::{QueuePlace, Task};
use http::{HeaderMap, Uri};
use task_log::{Entry, Follower, Position};
use wire::event::{End, TaskMetrics, Token};
use wire::{PreparationStep, TaskState};

use super::error::ApiError;
use super::query::Params;
use super::{AppState, results, sse, tasks};
use crate::metrics::OpenStream;
use crate::tokens::Caller;

pub(super) async fn follow(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let params = Params::of(&uri, &["verbose", "after"])?;
    let verbose = params.flag("verbose")?;
    let task = tasks::find(&state, &caller, &id)?;
    let after = position(&task, &params, &headers)?;
    let stream = EventStream::new(state, task, after, verbose);
    Ok(sse::response(futures_util::stream::unfold(stream, |mut stream| async move {
        let bytes = stream.next().await?;
        Some((bytes, stream))
    })))
}

/// Where to go on: `?after=`, else `Last-Event-ID`, else from the start. An id that this task never
/// gave out is refused, because its stream would end without a word.
fn position(task: &Task, params: &Params, headers: &HeaderMap) -> Result<Option<Position>, ApiError> {
    let header = headers.get("last-event-id").map(|value| value.to_str().unwrap_or("not text"));
    let (param, given) = match (params.text("after"), header.filter(|id| !id.is_empty())) {
        (Some(after), _) => ("after", after),
        (None, Some(header)) => ("Last-Event-ID", header),
        (None, None) => return Ok(None),
    };
    let position: Position = given
        .parse()
        .map_err(|error: task_log::PositionError| ApiError::invalid(param, error.to_string()))?;
    if !task.log().holds(position) {
        return Err(ApiError::invalid(param, format!("task {} has no event {position}", task.id())));
    }
    Ok(Some(position))
}

/// One reader.
struct EventStream {
    state: AppState,
    task: Task,
    follower: Follower,
    verbose: bool,
    place: QueuePlace,
    pools: tokio::sync::watch::Receiver<Arc<Vec<wire::PoolView>>>,
    told_steps: Vec<PreparationStep>,
    ready: VecDeque<Bytes>,
    _open: OpenStream,
}

impl EventStream {
    fn new(state: AppState, task: Task, after: Option<Position>, verbose: bool) -> Self {
        let follower = task.log().follow(after);
        let place = task.queue_place();
        let pools = state.pools.subscribe();
        let open = state.metrics.open_stream();
        let (told_steps, ready) = (Vec::new(), VecDeque::new());
        Self { state, task, follower, verbose, place, pools, told_steps, ready, _open: open }
    }

    async fn next(&mut self) -> Option<Bytes> {
        // One for all turns of the loop: what wakes it and sends nothing is still silence.
        let mut silence = std::pin::pin!(tokio::time::sleep(sse::KEEPALIVE_EVERY));
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                return Some(bytes);
            }
            let waiting = self.verbose && self.task.view().state == TaskState::Queued;
            if waiting {
                self.tell_waiting();
                if !self.ready.is_empty() {
                    continue;
                }
            }
            tokio::select! {
                biased;
                entry = self.follower.next() => {
                    let (position, entry) = entry?;
                    self.tell(position, &entry);
                    // Whatever else is there already goes out in the same write.
                    while self.ready_bytes() < sse::WRITE_BYTES
                        && let Some((position, entry)) = self.follower.try_next()
                    {
                        self.tell(position, &entry);
                    }
                    self.join_ready();
                }
                Some(queued) = self.place.changed(), if waiting => {
                    self.ready.push_back(sse::frame(None, "queued", &queued));
                }
                Ok(()) = self.pools.changed(), if waiting => {}
                () = &mut silence => return Some(sse::KEEPALIVE),
            }
        }
    }

    fn tell_waiting(&mut self) {
        if let Some(queued) = self.place.news() {
            self.ready.push_back(sse::frame(None, "queued", &queued));
        }
        self.pools.mark_unchanged();
        let steps = tasks::preparation(&self.state, self.task.pool());
        for step in tasks::moved(&self.told_steps, &steps) {
            self.ready.push_back(sse::frame(None, "prep", &step));
        }
        self.told_steps = steps;
    }

    fn tell(&mut self, position: Position, entry: &Entry) {
        let frame = match entry {
            Entry::Started(started) => sse::frame(Some(&position), "started", started),
            Entry::Chunk { index: None, .. } => return,
            Entry::Chunk { chunk, index: Some(i) } => {
                let token = Token { t: chunk.text.clone(), i: *i };
                sse::frame(Some(&position), "token", &token)
            }
            Entry::Resumed(resumed) => sse::frame(Some(&position), "resumed", resumed),
            Entry::End(end) => {
                self.tell_metrics(end);
                sse::frame(Some(&position), "end", &results::ended(&self.task, end))
            }
            Entry::Error(error) => sse::frame(Some(&position), "error", error),
        };
        self.ready.push_back(frame);
    }

    fn tell_metrics(&mut self, end: &End) {
        if self.verbose {
            let seconds = Duration::from_millis(end.decode_time_ms.max(1)).as_secs_f64();
            let metrics = TaskMetrics {
                queue_depth: self.state.dispatch.queue_depth(self.task.pool()),
                tokens_per_s: (end.tokens_out as f64 / seconds * 10.0).round() / 10.0,
            };
            self.ready.push_back(sse::frame(None, "metrics", &metrics));
        }
    }

    fn ready_bytes(&self) -> usize {
        self.ready.iter().map(Bytes::len).sum()
    }

    fn join_ready(&mut self) {
        if self.ready.len() > 1 {
            // Not a byte more than it needs: a reader that takes nothing holds on to it.
            let mut joined = Vec::with_capacity(self.ready_bytes());
            self.ready.drain(..).for_each(|frame| joined.extend_from_slice(&frame));
            self.ready.push_back(Bytes::from(joined));
        }
    }
}
