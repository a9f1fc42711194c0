//! The catalog of models, handed on from pool-managerd, on whose machine they are.

use axum::Json;
use axum::extract::Path;
use wire::catalog::{CatalogList, CatalogRemoved, CatalogVerified};
use wire::{CatalogModel, ErrorBody, ErrorCode};

use super::error::ApiError;
use super::manager::{Manager, not_taken};
use crate::pool_manager::PoolManagerClient;

pub(super) async fn list(Manager(manager): Manager) -> Result<Json<CatalogList>, ApiError> {
    let Some(manager) = manager else {
        return Ok(Json(CatalogList { models: Vec::new() }));
    };
    manager.models().await.map(Json).map_err(|error| not_taken(error, None))
}

pub(super) async fn show(manager: Manager, Path(id): Path<String>) -> Result<Json<CatalogModel>, ApiError> {
    let (manager, digest) = of(&manager, &id)?;
    manager.model(digest).await.map(Json).map_err(|error| not_taken(error, None))
}

pub(super) async fn verify(
    manager: Manager,
    Path(id): Path<String>,
) -> Result<Json<CatalogVerified>, ApiError> {
    let (manager, digest) = of(&manager, &id)?;
    manager.verify_model(digest).await.map(Json).map_err(|error| not_taken(error, None))
}

pub(super) async fn remove(
    manager: Manager,
    Path(id): Path<String>,
) -> Result<Json<CatalogRemoved>, ApiError> {
    let (manager, digest) = of(&manager, &id)?;
    manager.remove_model(digest).await.map(Json).map_err(|error| not_taken(error, None))
}

/// Whom to ask about a model. What is no digest is never put into a URL.
fn of<'a>(manager: &'a Manager, id: &'a str) -> Result<(&'a PoolManagerClient, &'a str), ApiError> {
    let is_digest = (8..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_hexdigit());
    manager.0.as_ref().filter(|_| is_digest).map(|manager| (manager, id)).ok_or_else(|| {
        let shown: String = id.chars().take(64).collect();
        ErrorBody::new(ErrorCode::NotFound, format!("no model begins with {shown:?}"))
            .hint("GET /v2/catalog/models has their digests; at least the first 8 digits of one name it")
            .into()
    })
}
