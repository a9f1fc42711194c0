//! What every `/v1` route does with a request once it is understood: the same queue, leases and
//! registry as `/v2`, but the client's connection is the task. When it goes, the task is cancelled at
//! once; until the task has a slot and its engine has not refused, a failure has a status of its own.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use adapter_host::EngineRequest;
use axum::response::Response;
use bytes::Bytes;
use dispatch::{Detach, Task, TaskSpec};
use futures_util::Stream;
use sha2::{Digest, Sha256};
use task_log::{Entry, Follower};
use wire::config::PoolKind;
use wire::task::{OnInterrupt, Priority};
use wire::{ErrorBody, ErrorCode, Phase, PoolId, TaskId, TraceContext};

use super::error::{ApiError, from_stream};
use super::too_slow::too_slow;
use super::{AppState, context, sse, tasks};
use crate::metrics::{EdgeMetrics, OpenStream};
use crate::tokens::Caller;

/// How long a request waits for a pool that is on its way up before it is told to come back.
const READY_WAIT: Duration = Duration::from_secs(30);
/// How long a stream's head waits for the engine's first word.
const REFUSAL_WAIT: Duration = Duration::from_secs(10);

/// A pool that may be asked: it is there, of the right kind, and up or on its way up.
pub(super) struct Asked<'a> {
    state: &'a AppState,
    caller: &'a Caller,
    model: &'a str,
    pool: PoolId,
}

impl<'a> Asked<'a> {
    pub(super) fn of(
        state: &'a AppState,
        caller: &'a Caller,
        model: &'a str,
        kind: PoolKind,
    ) -> Result<Self, ApiError> {
        let pool = tasks::resolve(state, model)?;
        refuse_another_kind(state, &pool, kind)?;
        refuse_the_unready(state, &pool)?;
        Ok(Self { state, caller, model, pool })
    }

    pub(super) fn pool(&self) -> &PoolId {
        &self.pool
    }

    /// Whether the engine may reuse its prompt cache.
    pub(super) fn cache_prompt(&self) -> bool {
        tasks::cache_prompt(self.state, &self.pool)
    }

    /// Submits, and waits until the task has its slot.
    pub(super) async fn begin(
        self,
        request: EngineRequest,
        body: &Bytes,
        trace: Option<TraceContext>,
    ) -> Result<Begun, ApiError> {
        let admission = self.state.traces.part(trace.as_ref());
        let admitted = self.admit(request, body, trace, admission.context()).await;
        tasks::admitted(admission, &self.pool, admitted.as_ref().err());
        let task = admitted?;
        let mut follower = task.log().follow(None);
        let first = wait_for_start(self.state, &self.pool, &mut follower).await?;
        refused(&first)?;
        Ok(Begun { id: task.id().clone(), follower, early: None, metrics: self.state.metrics.clone() })
    }

    async fn admit(
        &self,
        request: EngineRequest,
        body: &Bytes,
        trace: Option<TraceContext>,
        admission: Option<&TraceContext>,
    ) -> Result<Task, ApiError> {
        let tokens_in = context::check(self.state, &self.pool, &request, admission).await?;
        let task = self.state.dispatch.submit(TaskSpec {
            task_id: None,
            fingerprint: Sha256::digest(body).into(),
            owner: tasks::owner(self.caller),
            caller: self.caller.id(None),
            tokens_in,
            model: self.model.to_owned(),
            request,
            priority: Priority::Interactive,
            deadline: None,
            placement: None,
            detach: Detach::AtOnce,
            // Its chunks are one choice of one engine; a client of this API could not tell a seam.
            on_interrupt: OnInterrupt::Fail,
            transcript: false,
            session: None,
            trace,
        })?;
        Ok(task)
    }
}

/// A task that has its slot. In the order in which it stands here: it is part of what a token touches.
#[repr(C)]
pub(super) struct Begun {
    /// Read before the head was sent.
    early: Option<Arc<Entry>>,
    follower: Follower,
    pub(super) id: TaskId,
    metrics: EdgeMetrics,
}

/// Turns a task's entries into one API's events.
pub(super) trait Render: Send + Unpin + 'static {
    /// Appends what an entry is to this API's clients; nothing for an entry that it does not show.
    fn entry(&mut self, entry: &Entry, out: &mut Vec<u8>);
}

impl Begun {
    /// The next entry; `None` after the last. One that came too late for the rest is told so.
    pub(super) async fn next(&mut self) -> Option<Arc<Entry>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Arc<Entry>>> {
        if let Some(entry) = self.early.take() {
            return Poll::Ready(Some(entry));
        }
        self.follower.poll_next(cx).map(|next| next.map_or_else(|| self.too_slow(), |(_, entry)| Some(entry)))
    }

    fn too_slow(&self) -> Option<Arc<Entry>> {
        let behind = self.follower.behind()?;
        self.metrics.slow_readers.inc();
        Some(Arc::new(Entry::Error(too_slow(behind, None))))
    }

    /// A streaming response. An engine that refuses does so at once, and that still deserves a
    /// status; a long prefill does not hold the head back for ever: proxies want to hear something.
    pub(super) async fn stream(mut self, render: impl Render) -> Result<Response, ApiError> {
        self.early = tokio::time::timeout(REFUSAL_WAIT, self.next()).await.ok().flatten();
        self.early.as_deref().map_or(Ok(()), refused)?;
        let open = self.metrics.open_stream();
        let silence = sse::Silence::new();
        Ok(sse::response(Writing { begun: self, render, done: false, silence, _open: open }))
    }
}

/// A stream written by hand, in the order in which it stands here, for the same reasons as that of a task's events.
#[repr(C)]
struct Writing<R> {
    begun: Begun,
    silence: sse::Silence,
    done: bool,
    render: R,
    _open: OpenStream,
}

impl<R: Render> Stream for Writing<R> {
    type Item = Bytes;

    /// What is there already goes out in one write.
    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let this = self.get_mut();
        while !this.done {
            let Poll::Ready(next) = this.begun.poll_next(cx) else {
                return this.silence.poll_over(cx).map(|()| Some(sse::KEEPALIVE));
            };
            let Some(entry) = next else { return Poll::Ready(None) };
            let mut out = Vec::with_capacity(sse::WRITE_BYTES);
            this.render(&entry, &mut out);
            while out.len() < sse::WRITE_BYTES
                && let Some((_, entry)) = this.begun.follower.try_next()
            {
                this.render(&entry, &mut out);
            }
            if !out.is_empty() {
                this.silence.sent();
                return Poll::Ready(Some(Bytes::from(out)));
            }
        }
        Poll::Ready(None)
    }
}

impl<R: Render> Writing<R> {
    fn render(&mut self, entry: &Entry, out: &mut Vec<u8>) {
        self.done |= entry.is_terminal();
        self.render.entry(entry, out);
    }
}

/// A task that ends without an `end` or `error`, which dispatch rules out.
pub(super) fn without_end() -> ApiError {
    ApiError::new(ErrorCode::Internal, "the task ended without saying how")
}

fn refused(entry: &Entry) -> Result<(), ApiError> {
    match entry {
        Entry::Error(error) => Err(from_stream(error).into()),
        _ => Ok(()),
    }
}

/// An engine is started for one kind of work; only its configuration knows which before it is up.
pub(super) fn refuse_another_kind(state: &AppState, pool: &PoolId, kind: PoolKind) -> Result<(), ApiError> {
    let Some(configured) = state.kinds.get(pool).filter(|configured| *configured != kind) else {
        return Ok(());
    };
    let name = |kind: PoolKind| match kind {
        PoolKind::Chat => "chat",
        PoolKind::Embedding => "embedding",
        PoolKind::Rerank => "rerank",
    };
    let message =
        format!("pool {pool} serves {}, this request needs one for {}", name(configured), name(kind));
    Err(ErrorBody::new(ErrorCode::InvalidParams, message)
        .param("model")
        .pool(pool.clone())
        .hint(format!("configure a pool with `kind: {}` and ask for it", name(kind)))
        .into())
}

/// A client of this API cannot be told to wait for minutes: only a pool on its way up is waited for.
fn refuse_the_unready(state: &AppState, pool: &PoolId) -> Result<(), ApiError> {
    tasks::refuse_the_hopeless(state, pool)?;
    let provisioning = |view: &wire::PoolView| view.replicas.iter().all(|r| r.phase == Phase::Provisioning);
    if state.is_ready(pool) || !state.pool(pool).is_some_and(|view| provisioning(&view)) {
        return Ok(());
    }
    let steps = tasks::preparation(state, pool);
    let running = steps.iter().find(|step| step.status == wire::StepStatus::Running);
    let what = running.map(|step| format!(": {}", step.description)).unwrap_or_default();
    let left = running.and_then(|step| step.estimated_ms).unwrap_or(30_000);
    Err(ErrorBody::new(ErrorCode::PoolUnready, format!("pool {pool} is being prepared{what}"))
        .pool(pool.clone())
        .hint("POST /v2/tasks queues instead of refusing")
        .retry_after_ms(left.clamp(1_000, 120_000))
        .into())
}

async fn wait_for_start(
    state: &AppState,
    pool: &PoolId,
    follower: &mut Follower,
) -> Result<Arc<Entry>, ApiError> {
    loop {
        match tokio::time::timeout(READY_WAIT, follower.next()).await {
            Ok(Some((_, entry))) => return Ok(entry),
            Ok(None) => return Err(without_end()),
            // Waiting for a slot of a pool that serves is what a queue is for.
            Err(_) if state.is_ready(pool) => {}
            Err(_) => {
                let message = format!("pool {pool} did not become ready within {} s", READY_WAIT.as_secs());
                return Err(ErrorBody::new(ErrorCode::PoolUnready, message)
                    .pool(pool.clone())
                    .retry_after_ms(10_000)
                    .into());
            }
        }
    }
}
