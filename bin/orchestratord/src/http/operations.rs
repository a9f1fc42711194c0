//! Operations on pools: handed on to pool-managerd, which conducts and remembers them.

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::Serialize;
use serde_json::json;
use wire::operation::{DrainRequest, OperationAccepted, OperationList, ReloadRequest};
use wire::{ErrorCode, OperationId, OperationKind, OperationView};

use super::AppState;
use super::error::ApiError;
use super::extract::OptionalBody;
use super::manager::{Manager, not_taken};
use super::pools::find;

type Begun = Result<(StatusCode, Json<OperationAccepted>), ApiError>;

pub(super) async fn drain(
    State(state): State<AppState>,
    manager: Manager,
    Path(id): Path<String>,
    OptionalBody(request): OptionalBody<DrainRequest>,
) -> Begun {
    begin(&state, &manager, &id, OperationKind::Drain, &request).await
}

pub(super) async fn reload(
    State(state): State<AppState>,
    manager: Manager,
    Path(id): Path<String>,
    OptionalBody(request): OptionalBody<ReloadRequest>,
) -> Begun {
    begin(&state, &manager, &id, OperationKind::Reload, &request).await
}

pub(super) async fn undrain(
    State(state): State<AppState>,
    manager: Manager,
    Path(id): Path<String>,
) -> Begun {
    begin(&state, &manager, &id, OperationKind::Undrain, &json!({})).await
}

pub(super) async fn reset(State(state): State<AppState>, manager: Manager, Path(id): Path<String>) -> Begun {
    begin(&state, &manager, &id, OperationKind::Reset, &json!({})).await
}

pub(super) async fn list(Manager(manager): Manager) -> Result<Json<OperationList>, ApiError> {
    let Some(manager) = manager else {
        return Ok(Json(OperationList { operations: Vec::new() }));
    };
    manager.operations().await.map(Json).map_err(|error| not_taken(error, None))
}

pub(super) async fn show(
    Manager(manager): Manager,
    Path(id): Path<String>,
) -> Result<Json<OperationView>, ApiError> {
    let known = OperationId::try_new(id.as_str()).ok().zip(manager);
    let Some((id, manager)) = known else {
        let shown: String = id.chars().take(64).collect();
        return Err(ApiError::new(ErrorCode::NotFound, format!("there is no operation {shown:?}")));
    };
    manager.operation(&id).await.map(Json).map_err(|error| not_taken(error, None))
}

async fn begin(
    state: &AppState,
    manager: &Manager,
    id: &str,
    kind: OperationKind,
    details: &impl Serialize,
) -> Begun {
    let pool = find(state, id)?.id;
    let begun = manager.of(&pool)?.begin(&pool, kind, details).await;
    begun
        .map(|accepted| (StatusCode::ACCEPTED, Json(accepted)))
        .map_err(|error| not_taken(error, Some(&pool)))
}
