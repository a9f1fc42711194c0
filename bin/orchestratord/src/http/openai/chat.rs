//! `POST /v1/chat/completions`. The client's connection is the task: when it goes, the task is
//! cancelled at once.

use std::time::Duration;

use adapter_host::{ChatRequest, EngineRequest};
use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use dispatch::{Detach, TaskSpec};
use sha2::{Digest, Sha256};
use task_log::{Entry, Follower};
use wire::openai::ChatCompletionRequest;
use wire::task::Priority;
use wire::{ErrorBody, ErrorCode, Phase, PoolId};

use super::{collect, render};
use crate::http::error::{ApiError, from_stream};
use crate::http::extract::JsonBody;
use crate::http::{AppState, context, tasks, validate};
use crate::tokens::Caller;

/// How long a request waits for a pool that is on its way up before it is told to come back.
const READY_WAIT: Duration = Duration::from_secs(30);
/// How long a stream's head waits for the engine's first word.
const REFUSAL_WAIT: Duration = Duration::from_secs(10);

pub(in crate::http) async fn chat(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    body: JsonBody<ChatCompletionRequest>,
) -> Result<Response, ApiError> {
    let request = body.value;
    check(&request)?;
    let pool = tasks::resolve(&state, &request.model)?;
    refuse_the_unready(&state, &pool)?;
    let chat = ChatRequest { request: request.clone(), cache_prompt: tasks::cache_prompt(&state, &pool) };
    let engine_request = EngineRequest::Chat(Box::new(chat));
    context::check(&state, &pool, &engine_request).await?;
    let task = state.dispatch.submit(TaskSpec {
        task_id: None,
        fingerprint: Sha256::digest(&body.bytes).into(),
        owner: tasks::owner(&caller),
        model: request.model.clone(),
        request: engine_request,
        priority: Priority::Interactive,
        deadline: None,
        placement: None,
        detach: Detach::AtOnce,
        session: None,
    })?;
    let reply = render::Reply {
        id: format!("chatcmpl-{}", task.id()),
        created: crate::http::state::unix_seconds(),
        model: request.model,
        include_usage: request.stream_options.is_some_and(|options| options.include_usage),
    };
    // Until the task has a slot, a failure still gets a status of its own.
    let mut follower = task.log().follow(None);
    let first = wait_for_start(&state, &pool, &mut follower).await?;
    refused(&first)?;
    if request.stream {
        // An engine that refuses does so at once, and that still deserves a status. A long prefill
        // does not hold the head back for ever: proxies want to hear something.
        let early = tokio::time::timeout(REFUSAL_WAIT, follower.next()).await.ok().flatten();
        let early = early.map(|(_, entry)| entry);
        early.as_deref().map_or(Ok(()), refused)?;
        let open = state.metrics.open_stream();
        Ok(render::stream(reply, early, follower, open))
    } else {
        Ok(axum::Json(collect::whole(&reply, follower).await?).into_response())
    }
}

fn refused(entry: &Entry) -> Result<(), ApiError> {
    match entry {
        Entry::Error(error) => Err(from_stream(error).into()),
        _ => Ok(()),
    }
}

fn check(request: &ChatCompletionRequest) -> Result<(), ApiError> {
    validate::check_messages(&request.messages)?;
    if request.n.is_some_and(|n| n != 1) {
        return Err(ApiError::invalid("n", "only n = 1 is served; send the request again for more choices"));
    }
    validate::max_tokens("max_tokens", request.max_tokens)?;
    validate::max_tokens("max_completion_tokens", request.max_completion_tokens)?;
    validate::within("temperature", request.temperature, 0.0, 10.0)?;
    validate::within("top_p", request.top_p, 0.0, 1.0)?;
    validate::within("min_p", request.min_p, 0.0, 1.0)?;
    validate::within("repeat_penalty", request.repeat_penalty, 0.0, 10.0)?;
    validate::within("presence_penalty", request.presence_penalty, -2.0, 2.0)?;
    validate::within("frequency_penalty", request.frequency_penalty, -2.0, 2.0)?;
    if request.top_logprobs.is_some_and(|n| n > 20) {
        return Err(ApiError::invalid("top_logprobs", "top_logprobs must be 0 to 20"));
    }
    let stops = match &request.stop {
        None | Some(serde_json::Value::Null) => Vec::new(),
        Some(serde_json::Value::String(stop)) => vec![stop.clone()],
        Some(other) => serde_json::from_value(other.clone())
            .map_err(|_| ApiError::invalid("stop", "stop must be a string or a list of strings"))?,
    };
    validate::stops(stops).map(|_| ())
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
) -> Result<std::sync::Arc<Entry>, ApiError> {
    let gone = || ApiError::new(ErrorCode::Internal, "the task ended without saying how");
    loop {
        match tokio::time::timeout(READY_WAIT, follower.next()).await {
            Ok(Some((_, entry))) => return Ok(entry),
            Ok(None) => return Err(gone()),
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
