//! Operations: each is begun by a request that answers at once with an id, and looked at with another.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use wire::operation::{DrainRequest, LONGEST_DEADLINE_MS, OperationAccepted, OperationList, ReloadRequest};
use wire::{ErrorCode, OperationId, OperationView};

use super::Api;
use super::body::Optional;
use super::pools::ordered;
use super::problem::Problem;

type Begun = Result<(StatusCode, Json<OperationAccepted>), Problem>;

pub(super) async fn drain(
    State(api): State<Api>,
    Path(id): Path<String>,
    Optional(request): Optional<DrainRequest>,
) -> Begun {
    let deadline = deadline(request.deadline_ms, DrainRequest::DEFAULT_DEADLINE_MS)?;
    ordered(&api, &id, |pool| api.manager.drain(pool, deadline)).map(accepted)
}

pub(super) async fn reload(
    State(api): State<Api>,
    Path(id): Path<String>,
    Optional(request): Optional<ReloadRequest>,
) -> Begun {
    let deadline = deadline(request.deadline_ms, ReloadRequest::DEFAULT_DEADLINE_MS)?;
    // The stores are looked into.
    let begun = tokio::task::spawn_blocking(move || {
        ordered(&api, &id, |pool| api.manager.reload(pool, &request, deadline))
    });
    begun.await.unwrap_or_else(|join| Err(Problem::new(ErrorCode::Internal, join.to_string()))).map(accepted)
}

pub(super) async fn undrain(State(api): State<Api>, Path(id): Path<String>) -> Begun {
    ordered(&api, &id, |pool| api.manager.undrain(pool)).map(accepted)
}

pub(super) async fn reset(State(api): State<Api>, Path(id): Path<String>) -> Begun {
    ordered(&api, &id, |pool| api.manager.reset(pool)).map(accepted)
}

pub(super) async fn stop(State(api): State<Api>, Path(id): Path<String>) -> Begun {
    ordered(&api, &id, |pool| api.manager.stop(pool)).map(accepted)
}

pub(super) async fn list(State(api): State<Api>) -> Json<OperationList> {
    Json(api.manager.operations().list())
}

pub(super) async fn show(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Json<OperationView>, Problem> {
    api.manager.operations().view(&id).map(Json).ok_or_else(|| {
        let shown: String = id.chars().take(64).collect();
        Problem::new(ErrorCode::NotFound, format!("there is no operation {shown:?}"))
            .hint("GET /v2/operations lists those that are remembered: all that run, and the last 256 that ended since pool-managerd started")
    })
}

fn accepted(operation_id: OperationId) -> (StatusCode, Json<OperationAccepted>) {
    (StatusCode::ACCEPTED, Json(OperationAccepted { operation_id }))
}

fn deadline(named: Option<u64>, default: u64) -> Result<Duration, Problem> {
    let ms = named.unwrap_or(default);
    if ms > LONGEST_DEADLINE_MS {
        let rule = format!("deadline_ms must be 0 to {LONGEST_DEADLINE_MS} (a day)");
        return Err(Problem::new(ErrorCode::InvalidParams, rule).param("deadline_ms"));
    }
    Ok(Duration::from_millis(ms))
}
