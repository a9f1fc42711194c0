//! The machine's cards, which pool-managerd knows.

use axum::Json;
use wire::{DeviceList, ErrorBody, ErrorCode};

use super::error::ApiError;
use super::manager::{Manager, not_taken};

pub(super) async fn list(Manager(manager): Manager) -> Result<Json<DeviceList>, ApiError> {
    let Some(manager) = manager else {
        let message = "this orchestratord has no pool-managerd that could look for devices";
        return Err(ErrorBody::new(ErrorCode::PoolUnready, message).into());
    };
    manager.devices().await.map(Json).map_err(|error| not_taken(error, None))
}
