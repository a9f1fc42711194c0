//! `/v2/catalog/models…`: what model-provisioner holds. Reading a model again takes as long as its
//! disk; one is read at a time, and no longer than somebody waits for the answer.

use axum::Json;
use axum::extract::{Path, State};
use provisioners_engine_provisioner::Cancel;
use provisioners_model_provisioner::{Catalog, CatalogError};
use wire::catalog::{CatalogList, CatalogRemoved, CatalogVerified};
use wire::{CatalogModel, ErrorCode};

use super::Api;
use super::problem::Problem;

pub(super) async fn list(State(api): State<Api>) -> Result<Json<CatalogList>, Problem> {
    asked(&api, |catalog| Ok(CatalogList { models: catalog.list() })).await
}

pub(super) async fn show(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Json<CatalogModel>, Problem> {
    asked(&api, move |catalog| catalog.find(&id)).await
}

pub(super) async fn verify(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Json<CatalogVerified>, Problem> {
    let Ok(_one_reader) = api.verifying.try_acquire() else {
        return Err(Problem::new(ErrorCode::Conflict, "another model is being verified")
            .hint("ask again when that one has its answer"));
    };
    let cancel = Cancel::new();
    let _when_nobody_waits = CancelOnDrop(cancel.clone());
    asked(&api, move |catalog| {
        let model = catalog.find(&id)?;
        let problem = catalog.verify(&model.digest, &cancel)?;
        Ok(CatalogVerified { digest: model.digest, intact: problem.is_none(), problem })
    })
    .await
}

pub(super) async fn remove(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Json<CatalogRemoved>, Problem> {
    asked(&api, move |catalog| {
        let digest = catalog.find(&id)?.digest;
        let freed_bytes = catalog.remove(&digest)?;
        Ok(CatalogRemoved { digest, freed_bytes })
    })
    .await
}

struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Asks the catalog, on a thread where blocking is allowed.
async fn asked<T: Send + 'static>(
    api: &Api,
    ask: impl FnOnce(&Catalog) -> Result<T, CatalogError> + Send + 'static,
) -> Result<Json<T>, Problem> {
    let Some(catalog) = api.manager.shared().preparer.catalog() else {
        return Err(Problem::new(ErrorCode::NotFound, "there is no catalog of models here"));
    };
    let answer = tokio::task::spawn_blocking(move || ask(&catalog)).await;
    let answer = answer.unwrap_or(Err(CatalogError::Cancelled));
    answer.map(Json).map_err(|error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        let shown = |digest: &str| digest.chars().take(64).collect::<String>();
        match &error {
            CatalogError::NotFound { digest, known } => {
                Problem::new(ErrorCode::NotFound, format!("no model begins with {:?}", shown(digest)))
                    .hint(format!("at least 8 digits of a digest; the catalog has: {known}"))
            }
            CatalogError::Kept { .. } | CatalogError::Full { .. } | CatalogError::NotAModel { .. } => {
                Problem::new(ErrorCode::Conflict, error.to_string())
            }
            CatalogError::Io { .. } | CatalogError::Cancelled => {
                Problem::new(ErrorCode::StorageUnavailable, format!("{error}{cause}"))
            }
        }
    })
}
