//! Health, readiness, version, metrics.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use wire::usage::UsageReport;
use wire::{ErrorCode, Health, Readiness, Version};

use super::AppState;
use super::error::ApiError;

pub(crate) const SERVICE: &str = "orchestratord";

pub(super) async fn health() -> Json<Health> {
    Json(Health { status: "ok".to_owned(), service: SERVICE.to_owned() })
}

pub(super) async fn ready(State(state): State<AppState>) -> Response {
    let (pools_ready, pools_waiting): (Vec<_>, Vec<_>) =
        state.dispatch.pool_ids().into_iter().partition(|pool| state.is_ready(pool));
    if state.stopping.is_cancelled() {
        return ApiError::new(ErrorCode::PoolUnready, "shutting down").into_response();
    }
    let readiness = Readiness::of(pools_ready, pools_waiting);
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}

pub(super) async fn version() -> Json<Version> {
    Json(crate::built::version(SERVICE))
}

/// The document as it was generated with this source.
pub(super) async fn openapi() -> Response {
    const DOCUMENT: &str = include_str!("../../../../contracts/openapi/orchestratord.json");
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT).into_response()
}

pub(super) async fn usage(State(state): State<AppState>) -> Json<UsageReport> {
    Json(UsageReport { since: state.counting_since, usage: state.dispatch.usage() })
}

pub(super) async fn metrics(State(state): State<AppState>) -> Result<Response, ApiError> {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &state.exposition)
        .map_err(|_| ApiError::new(ErrorCode::Internal, "the metrics could not be encoded"))?;
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, content_type)], text).into_response())
}
