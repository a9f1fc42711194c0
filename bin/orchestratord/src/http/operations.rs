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
use super::pools::{find, manager, not_taken};

type Begun = Result<(StatusCode, Json<OperationAccepted>), ApiError>;

pub(super) async fn drain(
    State(state): State<AppState>,
    Path(id): Path<String>,
    OptionalBody(request): OptionalBody<DrainRequest>,
) -> Begun {
    begin(&state, &id, OperationKind::Drain, &request).await
}

pub(super) async fn reload(
    State(state): State<AppState>,
    Path(id): Path<String>,
    OptionalBody(request): OptionalBody<ReloadRequest>,
) -> Begun {
    begin(&state, &id, OperationKind::Reload, &request).await
}

pub(super) async fn undrain(State(state): State<AppState>, Path(id): Path<String>) -> Begun {
    begin(&state, &id, OperationKind::Undrain, &json!({})).await
}

pub(super) async fn reset(State(state): State<AppState>, Path(id): Path<String>) -> Begun {
    begin(&state, &id, OperationKind::Reset, &json!({})).await
}

pub(super) async fn list(State(state): State<AppState>) -> Result<Json<OperationList>, ApiError> {
    let Some(manager) = state.pool_manager() else {
        return Ok(Json(OperationList { operations: Vec::new() }));
    };
    manager.operations().await.map(Json).map_err(|error| not_taken(error, None))
}

pub(super) async fn show(
    State(state): State<AppState>,
    Path(id): Path<String>,
) -> Result<Json<OperationView>, ApiError> {
    let known = OperationId::try_new(id.as_str()).ok().zip(state.pool_manager());
    let Some((id, manager)) = known else {
        let shown: String = id.chars().take(64).collect();
        return Err(ApiError::new(ErrorCode::NotFound, format!("there is no operation {shown:?}")));
    };
    manager.operation(&id).await.map(Json).map_err(|error| not_taken(error, None))
}

async fn begin(state: &AppState, id: &str, kind: OperationKind, details: &impl Serialize) -> Begun {
    let pool = find(state, id)?.id;
    let begun = manager(state, &pool)?.begin(&pool, kind, details).await;
    begun
        .map(|accepted| (StatusCode::ACCEPTED, Json(accepted)))
        .map_err(|error| not_taken(error, Some(&pool)))
}
