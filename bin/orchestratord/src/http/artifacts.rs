//! Storing bytes and reading them back by their digest. Whose they are is decided as for tasks.

use axum::Extension;
use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use task_log::artifacts::ArtifactError;
use wire::{ArtifactStored, ErrorBody, ErrorCode};

use super::error::ApiError;
use super::extract::RawBody;
use super::{AppState, tasks};
use crate::settings::with_causes;
use crate::tokens::Caller;

pub(super) async fn store(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    RawBody(bytes): RawBody,
) -> Result<(StatusCode, Json<ArtifactStored>), ApiError> {
    if bytes.is_empty() {
        return Err(ApiError::new(
            ErrorCode::InvalidParams,
            "an artifact has at least one byte; send it as the body",
        ));
    }
    let (artifacts, owner) = (state.artifacts.clone(), tasks::owner(&caller).shelf());
    let length = bytes.len() as u64;
    let sha256 = on_disk(move || artifacts.put(&owner, &bytes)).await?;
    Ok((StatusCode::CREATED, Json(ArtifactStored { sha256, bytes: length })))
}

pub(super) async fn read(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path(sha256): Path<String>,
) -> Result<Response, ApiError> {
    let artifacts = state.artifacts.clone();
    let owner = (!caller.is_control()).then(|| tasks::owner(&caller).shelf());
    let name = sha256.clone();
    let found = on_disk(move || artifacts.get(owner.as_deref(), &name)).await?;
    let Some(bytes) = found else {
        return Err(ErrorBody::new(ErrorCode::NotFound, format!("no artifact is called {sha256:?}"))
            .hint("artifacts are let go of after a while, the oldest first; store it again")
            .into());
    };
    let mut response = bytes.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    // Somebody's bytes must never run as a page of ours.
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(response)
}

/// The disk blocks.
async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ArtifactError> + Send + 'static,
) -> Result<T, ApiError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| failed(&error)),
        Err(_) => Err(ApiError::new(ErrorCode::Internal, "the work on the disk was given up")),
    }
}

fn failed(error: &ArtifactError) -> ApiError {
    tracing::warn!(error = with_causes(error), "an artifact could not be stored or read");
    match error {
        ArtifactError::TooLarge { .. } => ApiError::new(ErrorCode::TooLarge, error.to_string()),
        // Where files lie is nobody's business but the operator's, who has the log.
        ArtifactError::Damaged { .. } => {
            ApiError::new(ErrorCode::Internal, "the artifact is not what was stored any more; store it again")
        }
        ArtifactError::Io { action, .. } => {
            ErrorBody::new(ErrorCode::StorageUnavailable, format!("the disk refuses to {action} it"))
                .hint("free space on the disk of paths.runtime")
                .retry_after_ms(2_000)
                .into()
        }
    }
}
