//! Pools as they are now, and the wish that one runs.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use wire::operation::PreloadRequest;
use wire::pool::PoolList;
use wire::{ErrorCode, Phase, PoolId, PoolView, Readiness};

use super::Api;
use super::body::Optional;
use super::problem::Problem;
use crate::manager::NotTaken;

pub(super) async fn list(State(api): State<Api>) -> Json<PoolList> {
    Json(api.manager.board().list())
}

/// 200 when a replica of any pool serves, else 503; which pools do and which do not.
pub(super) async fn ready(State(api): State<Api>) -> (StatusCode, Json<Readiness>) {
    let serves = |pool: &PoolView| pool.replicas.iter().any(|replica| replica.phase == Phase::Ready);
    let (ready, waiting): (Vec<_>, Vec<_>) = api.manager.board().list().pools.into_iter().partition(serves);
    let ids = |pools: Vec<PoolView>| pools.into_iter().map(|pool| pool.id).collect::<Vec<_>>();
    let readiness = Readiness::of(ids(ready), ids(waiting));
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness))
}

pub(super) async fn show(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<PoolView>, Problem> {
    view(&api, &id).map(Json)
}

/// The pool that a path names.
pub(super) fn view(api: &Api, id: &str) -> Result<PoolView, Problem> {
    let view = PoolId::try_new(id).ok().and_then(|id| api.manager.board().view(&id));
    view.ok_or_else(|| unknown(api, id))
}

pub(super) async fn preload(
    State(api): State<Api>,
    Path(id): Path<String>,
    Optional(request): Optional<PreloadRequest>,
) -> Result<(StatusCode, Json<PoolView>), Problem> {
    // The stores are looked into.
    let begun =
        tokio::task::spawn_blocking(move || ordered(&api, &id, |pool| api.manager.preload(pool, &request)));
    let view = begun.await.unwrap_or_else(|join| Err(Problem::new(ErrorCode::Internal, join.to_string())))?;
    Ok((StatusCode::ACCEPTED, Json(view)))
}

/// Gives an order about the pool that a path names.
pub(super) fn ordered<T>(
    api: &Api,
    id: &str,
    give: impl FnOnce(&PoolId) -> Result<T, NotTaken>,
) -> Result<T, Problem> {
    let pool = PoolId::try_new(id).map_err(|_| unknown(api, id))?;
    give(&pool).map_err(|error| match error {
        NotTaken::Unknown(_) => unknown(api, id),
        NotTaken::Invalid { param, problem } => Problem::new(ErrorCode::InvalidParams, problem).param(param),
        NotTaken::Serves(_) => Problem::new(ErrorCode::Conflict, error.to_string()).hint(format!(
            "POST /v2/pools/{id}/reload exchanges engines while they serve; or drain it first"
        )),
        NotTaken::Untrusted { .. } => Problem::new(ErrorCode::UntrustedArtifact, error.to_string())
            .param("model")
            .hint("`models` in the configuration of this machine says which models may be used"),
        NotTaken::Busy(busy) => Problem::new(ErrorCode::Conflict, busy.to_string())
            .hint(format!("GET /v2/operations/{} shows when it is over", busy.id)),
    })
}

fn unknown(api: &Api, id: &str) -> Problem {
    let known: Vec<String> = api.manager.board().list().pools.iter().map(|p| p.id.to_string()).collect();
    let shown: String = id.chars().take(64).collect();
    Problem::new(ErrorCode::NotFound, format!("there is no pool {shown:?}"))
        .hint(format!("configured pools: {}", known.join(", ")))
}
