//! The machine's cards, which pool-managerd knows.

use axum::Json;
use axum::extract::State;
use wire::{DeviceList, ErrorBody, ErrorCode};

use super::AppState;
use super::error::ApiError;
use super::pools::not_taken;

pub(super) async fn list(State(state): State<AppState>) -> Result<Json<DeviceList>, ApiError> {
    let Some(manager) = state.pool_manager() else {
        let message = "this orchestratord has no pool-managerd that could look for devices";
        return Err(ErrorBody::new(ErrorCode::PoolUnready, message).into());
    };
    manager.devices().await.map(Json).map_err(|error| not_taken(error, None))
}
