//! Engines that someone else runs: registering them, keeping them, letting go of them.

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use tokio::time::Instant;
use wire::worker::{RegisterWorker, WorkerList, WorkerView};
use wire::{ErrorBody, ErrorCode, PoolId, ReplicaId, ReplicaKey};

use super::AppState;
use super::error::ApiError;
use super::extract::JsonBody;
use crate::feed::{Worker, WorkerError};

const MOST_SLOTS: u32 = 256;
const TTL_MS: std::ops::RangeInclusive<u64> = 1_000..=86_400_000;

pub(super) async fn register(
    State(state): State<AppState>,
    body: JsonBody<RegisterWorker>,
) -> Result<(StatusCode, Json<WorkerView>), ApiError> {
    let request = body.value;
    check(&request)?;
    let key = ReplicaKey { pool: request.pool_id.clone(), replica: request.replica_id.clone() };
    refuse_another_ones(&state, &key)?;
    let worker = state.workers.register(request).await?;
    Ok((StatusCode::ACCEPTED, Json(view(&state, &worker))))
}

pub(super) async fn list(State(state): State<AppState>) -> Json<WorkerList> {
    let workers = state.workers.all();
    Json(WorkerList { workers: workers.iter().map(|worker| view(&state, worker)).collect() })
}

pub(super) async fn heartbeat(
    State(state): State<AppState>,
    Path(key): Path<(String, String)>,
) -> Result<Json<WorkerView>, ApiError> {
    let worker = match read(&key) {
        Some(key) => state.workers.renew(&key).await,
        None => None,
    };
    worker.map(|worker| Json(view(&state, &worker))).ok_or_else(|| unknown(&key))
}

pub(super) async fn unregister(
    State(state): State<AppState>,
    Path(key): Path<(String, String)>,
) -> Result<Json<WorkerView>, ApiError> {
    let worker = match read(&key) {
        Some(key) => state.workers.remove(&key).await?,
        None => None,
    };
    worker.map(|worker| Json(view(&state, &worker))).ok_or_else(|| unknown(&key))
}

fn check(request: &RegisterWorker) -> Result<(), ApiError> {
    let wrong = |param: &str, rule: String| Err(ApiError::invalid(param, format!("{param} must be {rule}")));
    let model = request.model.trim();
    if model.is_empty() || model.len() > 256 || model.chars().any(char::is_control) {
        return wrong("model", "the model's name, 1 to 256 bytes".to_owned());
    }
    if request.slots.is_some_and(|slots| !(1..=MOST_SLOTS).contains(&slots)) {
        return wrong("slots", format!("1 to {MOST_SLOTS}"));
    }
    if request.ttl_ms.is_some_and(|ttl| !TTL_MS.contains(&ttl)) {
        return wrong("ttl_ms", format!("{} to {} milliseconds", TTL_MS.start(), TTL_MS.end()));
    }
    let usable = |key: &String| (1..=512).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic());
    if !request.api_key.as_ref().is_none_or(usable) {
        return wrong("api_key", "1 to 512 visible ASCII characters".to_owned());
    }
    Ok(())
}

/// A name that pool-managerd or a handoff file uses stays theirs. The feed holds to that, too, should
/// one of them come later.
fn refuse_another_ones(state: &AppState, key: &ReplicaKey) -> Result<(), ApiError> {
    let managed = state.pools.current();
    let managed = managed.iter().filter(|pool| pool.id == key.pool).flat_map(|pool| &pool.replicas);
    let taken = managed.into_iter().any(|replica| replica.id == key.replica)
        || (state.feed.handoff(key).is_some() && !state.workers.has(key));
    if !taken {
        return Ok(());
    }
    let message = format!("the replica {key} is run here already");
    Err(ErrorBody::new(ErrorCode::Conflict, message)
        .param("replica_id")
        .hint("choose another replica_id")
        .into())
}

pub(super) fn view(state: &AppState, worker: &Worker) -> WorkerView {
    let (request, key) = (&worker.request, worker.key());
    let snapshot = state.registry.snapshot();
    let left = |at: Instant| u64::try_from(at.saturating_duration_since(Instant::now()).as_millis());
    // A name that a handoff file has taken since says nothing about this engine.
    let ours = state.feed.handoff(&key).is_none_or(|handoff| handoff.url == request.url);
    let replica = snapshot.replicas.get(&key).filter(|_| ours);
    WorkerView {
        pool_id: key.pool.clone(),
        replica_id: key.replica.clone(),
        url: request.url.clone(),
        model: request.model.clone(),
        ready: replica.is_some_and(|replica| replica.ready && !replica.draining),
        expires_in_ms: worker.expires.map(|at| left(at).unwrap_or(u64::MAX)),
        last_error: if ours {
            state.feed.error_of(&key)
        } else {
            Some(format!("a handoff file has the name {key}; this engine is not used"))
        },
    }
}

fn read((pool, replica): &(String, String)) -> Option<ReplicaKey> {
    let pool = PoolId::try_new(pool.as_str()).ok()?;
    Some(ReplicaKey { pool, replica: ReplicaId::try_new(replica.as_str()).ok()? })
}

fn unknown((pool, replica): &(String, String)) -> ApiError {
    let shown = |id: &String| id.chars().take(64).collect::<String>();
    let message = format!("no engine is registered as {:?} of pool {:?}", shown(replica), shown(pool));
    ErrorBody::new(ErrorCode::NotFound, message).hint("POST /v2/workers/register registers one").into()
}

impl From<WorkerError> for ApiError {
    fn from(error: WorkerError) -> Self {
        let message = error.to_string();
        match error {
            WorkerError::Url(_) => ErrorBody::new(ErrorCode::InvalidParams, message)
                .param("url")
                .hint("other networks are allowed with workers.networks in the configuration"),
            WorkerError::TooMany => {
                ErrorBody::new(ErrorCode::Conflict, message).hint("unregister those that are not used")
            }
            WorkerError::Unwritten { source, .. } => {
                ErrorBody::new(ErrorCode::StorageUnavailable, format!("{message}: {source}"))
                    .hint("free space on the disk of paths.runtime")
                    .retry_after_ms(2_000)
            }
        }
        .into()
    }
}
