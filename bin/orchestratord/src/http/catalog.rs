//! The catalog of models, handed on from pool-managerd, on whose machine they are.

use axum::Json;
use axum::extract::{Path, State};
use wire::catalog::{CatalogList, CatalogRemoved, CatalogVerified};
use wire::{CatalogModel, ErrorBody, ErrorCode};

use super::AppState;
use super::error::ApiError;
use super::pools::not_taken;
use crate::pool_manager::PoolManagerClient;

pub(super) async fn list(State(state): State<AppState>) -> Result<Json<CatalogList>, ApiError> {
    let Some(manager) = state.pool_manager() else {
        return Ok(Json(CatalogList { models: Vec::new() }));
    };
    manager.models().await.map(Json).map_err(|error| not_taken(error, None))
}

pub(super) async fn show(
    State(state): State<AppState>,
    Path(id): Path<String>,
) -> Result<Json<CatalogModel>, ApiError> {
    let (manager, digest) = of(&state, &id)?;
    manager.model(digest).await.map(Json).map_err(|error| not_taken(error, None))
}

pub(super) async fn verify(
    State(state): State<AppState>,
    Path(id): Path<String>,
) -> Result<Json<CatalogVerified>, ApiError> {
    let (manager, digest) = of(&state, &id)?;
    manager.verify_model(digest).await.map(Json).map_err(|error| not_taken(error, None))
}

pub(super) async fn remove(
    State(state): State<AppState>,
    Path(id): Path<String>,
) -> Result<Json<CatalogRemoved>, ApiError> {
    let (manager, digest) = of(&state, &id)?;
    manager.remove_model(digest).await.map(Json).map_err(|error| not_taken(error, None))
}

/// Whom to ask about a model. What is no digest is never put into a URL.
fn of<'a>(state: &'a AppState, id: &'a str) -> Result<(&'a PoolManagerClient, &'a str), ApiError> {
    let is_digest = (8..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_hexdigit());
    state.pool_manager().filter(|_| is_digest).map(|manager| (manager, id)).ok_or_else(|| {
        let shown: String = id.chars().take(64).collect();
        ErrorBody::new(ErrorCode::NotFound, format!("no model begins with {shown:?}"))
            .hint("GET /v2/catalog/models has their digests; at least the first 8 digits of one name it")
            .into()
    })
}
