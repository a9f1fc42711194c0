//! Submitting, showing, listing and cancelling tasks.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use dispatch::{AdmissionError, Attribute, Detach, Owner, Side, Task, TaskFilter, TaskSpec};
use http::{StatusCode, Uri};
use sha2::{Digest, Sha256};
use wire::task::{
    Accepted, Determinism, OnInterrupt, Placement, PlacementMode, Preparation, Priority, Streams, TaskList,
};
use wire::{
    ErrorBody, ErrorCode, Phase, PoolId, Seed, StepStatus, TaskId, TaskRequest, TaskView, TraceContext,
    Wanted,
};

use super::error::ApiError;
use super::extract::JsonBody;
use super::query::Params;
use super::trace::Part;
use super::{AppState, context, door, results, validate};
use crate::tokens::Caller;

/// A running task is cancelled after this long without a reader, unless it says otherwise.
const DETACH_GRACE: Duration = Duration::from_secs(30);

/// By this seed llama-server draws one of its own.
const RANDOM: u32 = u32::MAX;

pub(super) async fn submit(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    body: JsonBody<TaskRequest>,
) -> Result<Response, ApiError> {
    let admission = state.traces.part(body.trace.as_ref());
    let pool = resolve(&state, &body.value.model)?;
    let task = admit(&state, &caller, &pool, body, admission.context()).await;
    admitted(admission, &pool, task.as_ref().err());
    Ok((StatusCode::ACCEPTED, Json(accepted(&state, &task?))).into_response())
}

/// An admission is over: the task has its place, or was refused.
pub(super) fn admitted(admission: Part, pool: &PoolId, refused: Option<&ApiError>) {
    let pool = ("llama_orch.pool_id", Attribute::Text(pool.to_string()));
    let error = refused.map(|refused| refused.0.code.as_str().to_owned());
    admission.ended("admission", Side::Internal, vec![pool], error);
}

async fn admit(
    state: &AppState,
    caller: &Caller,
    pool: &PoolId,
    body: JsonBody<TaskRequest>,
    admission: Option<&TraceContext>,
) -> Result<Task, ApiError> {
    let mut request = body.value;
    // Drawn here rather than by the engine, which does not say what it drew: a receipt must say it.
    if validate::generates(&request) {
        request.seed = request.seed.filter(|seed| seed.0 != RANDOM).or_else(|| Some(draw_seed()));
    }
    let engine_request = validate::engine_request(&request, cache_prompt(state, pool))?;
    // Whoever asks again for a task that was accepted gets it, whatever has become of its pool.
    let known = |id| state.dispatch.task(id, &owner(caller)).is_some();
    let tokens_in = if request.task_id.as_ref().is_some_and(known) {
        None
    } else {
        door::refuse_another_kind(state, pool, validate::kind(&engine_request))?;
        refuse_the_unrepeatable(state, pool, &request)?;
        refuse_the_hopeless(state, pool)?;
        refuse_nowhere(state, pool, request.placement.as_ref())?;
        context::check(state, pool, &engine_request, admission).await?
    };
    let grace = validate::duration("detach_grace_ms", request.detach_grace_ms)?;
    let detach = match (request.priority, grace) {
        (Priority::Batch, None) => Detach::Never,
        (_, grace) => Detach::After(grace.unwrap_or(DETACH_GRACE)),
    };
    let on_interrupt = on_interrupt(&request);
    let spec = TaskSpec {
        task_id: request.task_id,
        fingerprint: Sha256::digest(&body.bytes).into(),
        owner: owner(caller),
        caller: caller.id(request.session_id.as_ref()),
        tokens_in,
        model: request.model,
        request: engine_request,
        priority: request.priority,
        deadline: validate::duration("deadline_ms", request.deadline_ms)?,
        placement: request.placement,
        detach,
        on_interrupt,
        transcript: request.transcript,
        session: request.session_id,
        trace: body.trace,
    };
    Ok(state.dispatch.submit_durably(spec).await?)
}

/// Any but the one by which llama-server draws its own.
fn draw_seed() -> Seed {
    Seed((uuid::Uuid::new_v4().as_u128() % u128::from(RANDOM)) as u32)
}

/// Other tokens in the same batch change the last bits of an answer; only a deterministic pool has none.
fn refuse_the_unrepeatable(state: &AppState, pool: &PoolId, request: &TaskRequest) -> Result<(), ApiError> {
    let deterministic = |pool: &PoolId| state.dispatch.pool_spec(pool).is_some_and(|spec| spec.deterministic);
    if request.determinism == Determinism::BestEffort || deterministic(pool) {
        return Ok(());
    }
    let message = format!("pool {pool} is not deterministic, and this task wants strict determinism");
    let others = state.dispatch.pool_ids().into_iter().filter(|id| deterministic(id));
    let others: Vec<String> = others.map(String::from).collect();
    let hint = match others.as_slice() {
        [] => "configure a pool with `deterministic: true` and one slot".to_owned(),
        others => format!("these pools are: {}", others.join(", ")),
    };
    Err(ErrorBody::new(ErrorCode::InvalidParams, message)
        .param("determinism")
        .pool(pool.clone())
        .hint(hint)
        .into())
}

/// Behind a seam another seed would draw other tokens than an uninterrupted answer has.
fn on_interrupt(request: &TaskRequest) -> OnInterrupt {
    let draws = request.temperature != Some(0.0);
    if request.determinism == Determinism::Strict && draws { OnInterrupt::Fail } else { request.on_interrupt }
}

fn accepted(state: &AppState, task: &Task) -> Accepted {
    let place = task.queue_place().now();
    let sse = format!("/v2/tasks/{}/events", task.id());
    Accepted {
        task_id: task.id().clone(),
        queue_position: place.as_ref().map_or(0, |place| place.position),
        predicted_start_ms: place.map_or(Some(0), |place| place.predicted_start_ms),
        streams: Streams { sse_verbose: format!("{sse}?verbose=true"), sse },
        preparation: Preparation { steps: preparation(state, task.pool()) },
    }
}

/// The steps between a pool and its readiness; none when it is ready.
pub(super) fn preparation(state: &AppState, pool: &PoolId) -> Vec<wire::PreparationStep> {
    if state.is_ready(pool) {
        return Vec::new();
    }
    state.pool(pool).map(|view| view.steps).unwrap_or_default()
}

/// A pool whose every replica waits for its configuration to change takes no task: it would wait
/// for ever. The answer says what is wrong with the pool.
pub(super) fn refuse_the_hopeless(state: &AppState, pool: &PoolId) -> Result<(), ApiError> {
    if state.is_ready(pool) {
        return Ok(());
    }
    let Some(view) = state.pool(pool) else { return Ok(()) };
    let all = |phase: Phase| !view.replicas.is_empty() && view.replicas.iter().all(|r| r.phase == phase);
    let last = view.replicas.iter().find_map(|replica| replica.last_error.as_ref());
    let (code, what) = match () {
        () if all(Phase::Failed) => (ErrorCode::PoolUnready, "cannot run until its configuration changes"),
        () if all(Phase::BreakerOpen) => (ErrorCode::BreakerOpen, "was lost too often; its breaker is open"),
        // Whoever drained it brings it back; one that drains for a reload comes back by itself.
        () if view.wanted == Wanted::Drained => (ErrorCode::PoolDraining, "is drained"),
        () if all(Phase::Stopped) => (ErrorCode::PoolUnready, "is stopped"),
        () => return Ok(()),
    };
    let why = last.map(|error| format!(": {}", error.message)).unwrap_or_default();
    let mut body = ErrorBody::new(code, format!("pool {pool} {what}{why}")).pool(pool.clone());
    body.hint = match code {
        ErrorCode::PoolDraining => Some(format!("POST /v2/pools/{pool}/undrain brings it back")),
        _ => last.and_then(|error| error.remedy.clone()),
    };
    // What waits for somebody to change something is not worth repeating.
    body.retriable = code != ErrorCode::PoolUnready;
    if body.retriable {
        let next = view.replicas.iter().filter_map(|replica| replica.next_attempt_ms).min();
        body.retry_after_ms = Some(next.unwrap_or(30_000).max(1_000));
    }
    Err(body.into())
}

/// A task pinned to a replica that its pool does not have would wait for ever.
fn refuse_nowhere(state: &AppState, pool: &PoolId, placement: Option<&Placement>) -> Result<(), ApiError> {
    let pinned = placement.filter(|placement| placement.mode == PlacementMode::Pin);
    let Some(replica) = pinned.and_then(|placement| placement.replica_id.as_ref()) else { return Ok(()) };
    let known = state.pool(pool).map(|view| view.replicas).unwrap_or_default();
    let published = state.registry.snapshot();
    let mut published = published.pool(pool).map(|(key, _)| &key.replica);
    if known.is_empty() || known.iter().any(|view| view.id == *replica) || published.any(|id| id == replica) {
        return Ok(());
    }
    let names: Vec<_> = known.iter().map(|view| view.id.as_str()).collect();
    let message = format!("placement.replica_id is {replica}, but pool {pool} has {}", names.join(", "));
    Err(ErrorBody::new(ErrorCode::InvalidParams, message).param("placement").pool(pool.clone()).into())
}

pub(super) fn resolve(state: &AppState, model: &str) -> Result<PoolId, ApiError> {
    state.dispatch.resolve(model).map_err(|unknown| {
        let mut body =
            ErrorBody::new(ErrorCode::ModelNotFound, format!("no pool serves {model:?}")).param("model");
        body.hint = Some(match unknown.nearest.as_slice() {
            [] => "GET /v1/models lists what is served".to_owned(),
            nearest => format!("did you mean {}?", nearest.join(" or ")),
        });
        body.into()
    })
}

/// A deterministic pool computes every prompt anew: reusing a cache changes the batches, and with
/// them the last bits of the output.
pub(super) fn cache_prompt(state: &AppState, pool: &PoolId) -> bool {
    !state.dispatch.pool_spec(pool).is_some_and(|spec| spec.deterministic)
}

pub(super) fn owner(caller: &Caller) -> Owner {
    if caller.is_control() { Owner::Control } else { Owner::Data(caller.name().into()) }
}

pub(super) fn find(state: &AppState, caller: &Caller, id: &str) -> Result<Task, ApiError> {
    let task = TaskId::try_new(id).ok().and_then(|id| state.dispatch.task(&id, &owner(caller)));
    task.ok_or_else(|| unknown(id))
}

fn unknown(id: &str) -> ApiError {
    ErrorBody::new(ErrorCode::NotFound, format!("no task is called {id:?}"))
        .hint("finished tasks are forgotten after a while; submit it again")
        .into()
}

pub(super) async fn show(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<TaskView>, ApiError> {
    let task = find(&state, &caller, &id)?;
    results::shown(&task).map(Json).map_err(|_| unknown(&id))
}

pub(super) async fn cancel(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<TaskView>), ApiError> {
    let task = find(&state, &caller, &id)?;
    task.cancel();
    // No token follows the answer on any stream.
    task.log().settled().await;
    Ok((StatusCode::ACCEPTED, Json(task.view())))
}

pub(super) async fn list(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
) -> Result<Json<TaskList>, ApiError> {
    let params = Params::of(&uri, &["state", "limit", "cursor"])?;
    let limit = params.number("limit", 1..=1000)?.unwrap_or(100);
    let before = match params.text("cursor").map(str::parse) {
        Some(Ok(before)) => Some(before),
        Some(Err(_)) => return Err(ApiError::invalid("cursor", "cursor must be the next_cursor of a page")),
        None => None,
    };
    let filter = TaskFilter { owner: owner(&caller), state: params.one_of("state")?, limit, before };
    let page = state.dispatch.tasks(&filter);
    Ok(Json(TaskList { tasks: page.tasks, next_cursor: page.next.map(|next| next.to_string()) }))
}

impl From<AdmissionError> for ApiError {
    fn from(error: AdmissionError) -> Self {
        let message = error.to_string();
        match error {
            AdmissionError::UnknownModel(_) => {
                ErrorBody::new(ErrorCode::ModelNotFound, message).param("model")
            }
            AdmissionError::QueueFull { pool, retry_after, .. }
            | AdmissionError::OverShare { pool, retry_after, .. } => {
                ErrorBody::new(ErrorCode::QueueFull, message)
                    .pool(pool)
                    .retry_after_ms(retry_after.as_millis() as u64)
            }
            AdmissionError::SessionSpent { .. } => {
                let mut body = ErrorBody::new(ErrorCode::RateLimited, message).param("session_id");
                body.retriable = false;
                body.hint("begin another session, or DELETE this one")
            }
            AdmissionError::RateLimited { retry_after, .. } => {
                ErrorBody::new(ErrorCode::RateLimited, message).retry_after_ms(retry_after.as_millis() as u64)
            }
            AdmissionError::Conflict { .. } => ErrorBody::new(ErrorCode::Conflict, message).param("task_id"),
            AdmissionError::DeadlineUnmet { pool, .. } => ErrorBody::new(ErrorCode::DeadlineUnmet, message)
                .pool(pool)
                .param("deadline_ms")
                .hint("give it a longer deadline_ms or fewer max_tokens, or none and watch `queued` events"),
            AdmissionError::InvalidPlacement(_) => {
                ErrorBody::new(ErrorCode::InvalidParams, message).param("placement")
            }
            AdmissionError::Unrecorded => ErrorBody::new(ErrorCode::StorageUnavailable, message)
                .hint("free space on the disk of paths.runtime; it is tried again every second")
                .retry_after_ms(2_000),
            AdmissionError::ShuttingDown => {
                ErrorBody::new(ErrorCode::PoolUnready, message).retry_after_ms(5_000)
            }
        }
        .into()
    }
}

/// Whether anything is still being prepared, for the stream's `prep` events.
pub(super) fn moved(
    before: &[wire::PreparationStep],
    after: &[wire::PreparationStep],
) -> Vec<wire::PreparationStep> {
    after
        .iter()
        .filter(|step| !before.contains(step))
        .filter(|step| step.status != StepStatus::Pending || !before.iter().any(|b| b.id == step.id))
        .cloned()
        .collect()
}
