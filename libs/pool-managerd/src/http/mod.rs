//! The HTTP API: a thin edge over the board and the commanders. Which operations there are is
//! `wire::operations`; a test asks this router for each of them.

mod auth;
mod problem;
mod serve;

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use wire::pool::PoolList;
use wire::{ErrorCode, PoolView};

use crate::Token;
use crate::board::Board;
use crate::orders::Commander;
use crate::shared::Shared;
use problem::Problem;

pub(crate) use serve::serve;

/// What the handlers see.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) board: Arc<Board>,
    pub(crate) commanders: Arc<HashMap<String, Commander>>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) token: Token,
}

/// Bodies are not read by any operation; this bounds what a client may try.
const BODY_LIMIT_BYTES: usize = 64 * 1024;

pub(crate) fn router(api: Api) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .route("/v2/pools", get(pools))
        .route("/v2/pools/{id}", get(pool))
        .route("/v2/pools/{id}/preload", post(preload))
        .route("/v2/pools/{id}/stop", post(stop))
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
    match api.shared.metrics.render() {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => {
            Problem::new(ErrorCode::Internal, format!("cannot render the metrics: {error}")).into_response()
        }
    }
}

async fn pools(State(api): State<Api>) -> Json<PoolList> {
    Json(api.board.list())
}

async fn pool(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<PoolView>, Problem> {
    api.board.view(&id).map(Json).ok_or_else(|| unknown(&api, &id))
}

async fn preload(State(api): State<Api>, Path(id): Path<String>) -> Result<impl IntoResponse, Problem> {
    order(&api, &id, Commander::run)
}

async fn stop(State(api): State<Api>, Path(id): Path<String>) -> Result<impl IntoResponse, Problem> {
    order(&api, &id, Commander::stop)
}

fn order(api: &Api, id: &str, give: fn(&Commander)) -> Result<(StatusCode, Json<PoolView>), Problem> {
    let commander = api.commanders.get(id).ok_or_else(|| unknown(api, id))?;
    give(commander);
    let view = api.board.view(id).ok_or_else(|| unknown(api, id))?;
    Ok((StatusCode::ACCEPTED, Json(view)))
}

fn unknown(api: &Api, id: &str) -> Problem {
    let known: Vec<String> = api.board.list().pools.iter().map(|p| p.id.to_string()).collect();
    let shown: String = id.chars().take(64).collect();
    Problem::new(ErrorCode::NotFound, format!("there is no pool {shown:?}"))
        .hint(format!("configured pools: {}", known.join(", ")))
}
