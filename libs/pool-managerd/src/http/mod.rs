//! The HTTP API: a thin edge over the board and the commanders. Which operations there are is
//! `wire::operations`; a test asks this router for each of them.

mod auth;
mod body;
mod catalog;
mod devices;
mod logs;
mod operations;
mod pools;
mod problem;
mod serve;

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use wire::ErrorCode;

use crate::Token;
use crate::manager::Manager;
use problem::Problem;

pub(crate) use serve::serve;

/// What the handlers see.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) manager: Manager,
    pub(crate) token: Token,
    /// Ends streams.
    pub(crate) shutdown: CancellationToken,
    /// Those who read logs now: fewer than there may be connections, so that the others get through.
    pub(crate) followers: Arc<Semaphore>,
    /// Models are read again one at a time.
    pub(crate) verifying: Arc<Semaphore>,
}

/// Logs that may be read at once.
pub(crate) const FOLLOWERS: usize = 32;

/// Every body is a few fields; this bounds what a client may try.
const BODY_LIMIT_BYTES: usize = 64 * 1024;

pub(crate) fn router(api: Api) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/ready", get(pools::ready))
        .route("/metrics", get(metrics))
        .route("/v2/devices", get(devices::list))
        .route("/v2/catalog/models", get(catalog::list))
        .route("/v2/catalog/models/{id}", get(catalog::show).delete(catalog::remove))
        .route("/v2/catalog/models/{id}/verify", post(catalog::verify))
        .route("/v2/pools", get(pools::list))
        .route("/v2/pools/{id}", get(pools::show))
        .route("/v2/pools/{id}/logs", get(logs::logs))
        .route("/v2/pools/{id}/preload", post(pools::preload))
        .route("/v2/pools/{id}/drain", post(operations::drain))
        .route("/v2/pools/{id}/undrain", post(operations::undrain))
        .route("/v2/pools/{id}/reload", post(operations::reload))
        .route("/v2/pools/{id}/reset", post(operations::reset))
        .route("/v2/pools/{id}/stop", post(operations::stop))
        .route("/v2/operations", get(operations::list))
        .route("/v2/operations/{id}", get(operations::show))
        .fallback(|| async { Problem::new(ErrorCode::NotFound, "there is no such route") })
        .method_not_allowed_fallback(|| async {
            Problem::new(ErrorCode::MethodNotAllowed, "this route does not know this method")
        })
        .layer(axum::extract::DefaultBodyLimit::max(BODY_LIMIT_BYTES))
        .layer(middleware::from_fn_with_state(api.token.clone(), auth::require_token))
        .layer(middleware::from_fn(auth::correlate))
        .with_state(api)
}

async fn health() -> Json<wire::Health> {
    Json(wire::Health { status: "ok".to_owned(), service: "pool-managerd".to_owned() })
}

async fn metrics(State(api): State<Api>) -> Response {
    let shared = api.manager.shared();
    match shared.metrics.render(shared.cards.recent().await.cards()) {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => {
            Problem::new(ErrorCode::Internal, format!("cannot render the metrics: {error}")).into_response()
        }
    }
}
