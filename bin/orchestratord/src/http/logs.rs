//! The logs of a pool's engines, handed through from pool-managerd as they come.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt as _;
use http::{HeaderMap, StatusCode, Uri, header};

use super::AppState;
use super::error::ApiError;
use super::manager::{Manager, not_taken};
use super::pools::find;

pub(super) async fn logs(
    State(state): State<AppState>,
    manager: Manager,
    Path(id): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let pool = find(&state, &id)?.id;
    let answer = manager
        .of(&pool)?
        .logs(&pool, uri.query().unwrap_or_default(), headers.get(header::ACCEPT))
        .await
        .map_err(|error| not_taken(error, Some(&pool)))?;
    let kind = answer.headers().get(header::CONTENT_TYPE).cloned();
    let stopping = state.stopping.clone().cancelled_owned();
    let mut response =
        (StatusCode::OK, Body::from_stream(answer.bytes_stream().take_until(stopping))).into_response();
    if let Some(kind) = kind {
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    response.headers_mut().insert(header::CACHE_CONTROL, http::HeaderValue::from_static("no-cache"));
    Ok(response)
}
