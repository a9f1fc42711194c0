//! `GET /v2/tasks/{id}/events`: a task's log as server-sent events, from any position.
//!
//! What has an `id:` is in the log and can be resumed from. Verbose extras (`queued`, `prep`,
//! `metrics`) say how things stand now; they have no id and are not replayed.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::Response;
use bytes::Bytes;
use dispatch::Task;
use futures_util::Stream;
use http::{HeaderMap, Uri};
use task_log::{Behind, Entry, Follower, Position};
use wire::event::{End, TaskMetrics};

use super::error::ApiError;
use super::query::Params;
use super::too_slow::too_slow;
use super::waiting::Waiting;
use super::{AppState, results, sse, tasks};
use crate::metrics::OpenStream;
use crate::tokens::Caller;

/// What one token's frame takes.
const FRAME_BYTES: usize = 96;

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
    if !verbose {
        return Ok(sse::response(Events::new(state, task, after, false)));
    }
    let waiting = Waiting::new(Events::new(state, task, after, true));
    Ok(sse::response(futures_util::stream::unfold(waiting, |mut waiting| async move {
        let bytes = waiting.next().await?;
        Some((bytes, waiting))
    })))
}

/// Where to go on: `?after=`, else `Last-Event-ID`, else from the start. An id that this task never
/// gave out is refused, because its stream would end without a word; one of an event that was lost is
/// not, because what is in its place says so.
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
    if !task.log().gave_out(position) {
        return Err(ApiError::invalid(param, format!("task {} has no event {position}", task.id())));
    }
    Ok(Some(position))
}

/// One reader. A stream written by hand, because one of async functions is moved as a whole for each event; in
/// the order in which it stands here, because what a token touches is to lie together: with thousands of
/// streams none of it is in a cache when the next one comes.
#[repr(C)]
pub(super) struct Events {
    follower: Follower,
    /// Frames that are to be sent.
    ready: Vec<u8>,
    pub(super) silence: sse::Silence,
    verbose: bool,
    /// It was told why nothing more comes, where that is not in the log.
    told_last: bool,
    pub(super) task: Task,
    pub(super) state: AppState,
    _open: OpenStream,
}

impl Stream for Events {
    type Item = Bytes;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let this = self.get_mut();
        while this.ready.is_empty() {
            let Poll::Ready(next) = this.follower.poll_next(cx) else {
                return this.silence.poll_over(cx).map(|()| Some(sse::KEEPALIVE));
            };
            let Some((position, entry)) = next else { return Poll::Ready(this.last_words()) };
            this.tell(position, &entry);
            // Whatever else is there already goes out in the same write.
            while this.ready.len() < sse::WRITE_BYTES
                && let Some((position, entry)) = this.follower.try_next()
            {
                this.tell(position, &entry);
            }
        }
        this.silence.sent();
        let mut ready = std::mem::take(&mut this.ready);
        // A reader that takes nothing holds sixteen of these.
        if ready.capacity() - ready.len() > FRAME_BYTES {
            ready.shrink_to_fit();
        }
        Poll::Ready(Some(Bytes::from(ready)))
    }
}

impl Events {
    fn new(state: AppState, task: Task, after: Option<Position>, verbose: bool) -> Self {
        let follower = task.log().follow(after);
        let open = state.metrics.open_stream();
        let (ready, silence, told_last) = (Vec::new(), sse::Silence::new(), false);
        Self { follower, ready, silence, verbose, told_last, task, state, _open: open }
    }

    fn tell(&mut self, position: Position, entry: &Entry) {
        if let Entry::End(end) = entry {
            self.tell_metrics(end);
        }
        self.ready.reserve(FRAME_BYTES);
        let (out, id) = (&mut self.ready, Some(position));
        match entry {
            Entry::Started(started) => sse::put_frame(out, id, "started", started),
            Entry::Chunk { index: None, .. } => {}
            Entry::Chunk { chunk, index: Some(i), .. } => sse::put_token(out, position, &chunk.text, *i),
            Entry::Resumed(resumed) => sse::put_frame(out, id, "resumed", resumed),
            Entry::End(end) => sse::put_frame(out, id, "end", &results::ended(&self.follower, end)),
            Entry::Error(error) => sse::put_frame(out, id, "error", error),
        }
    }

    /// Of a task that goes on in another process, and to a reader that was too slow: without an id, so that
    /// one that comes back does so behind the last event that it had.
    fn last_words(&mut self) -> Option<Bytes> {
        if std::mem::replace(&mut self.told_last, true) {
            return None;
        }
        if let Some(behind) = self.follower.behind() {
            self.tell_too_slow(behind);
            return Some(Bytes::from(std::mem::take(&mut self.ready)));
        }
        let last = self.task.log().put_off()?;
        let Entry::Error(error) = &*last else { return None };
        Some(sse::frame(None, "error", error))
    }

    fn tell_too_slow(&mut self, behind: Behind) {
        self.state.metrics.slow_readers.inc();
        let receipt = self.task.view().receipt;
        let transcript = receipt.as_ref().and_then(|receipt| receipt.transcript_sha256.as_deref());
        sse::put_frame(&mut self.ready, None, "error", &too_slow(behind, transcript));
    }

    fn tell_metrics(&mut self, end: &End) {
        if self.verbose {
            let seconds = Duration::from_millis(end.decode_time_ms.max(1)).as_secs_f64();
            let metrics = TaskMetrics {
                queue_depth: self.state.dispatch.queue_depth(self.task.pool()),
                tokens_per_s: (end.tokens_out as f64 / seconds * 10.0).round() / 10.0,
            };
            sse::put_frame(&mut self.ready, None, "metrics", &metrics);
        }
    }
}
