//! The real [`Prepare`]: engine-provisioner. The only module that knows it.

use std::path::PathBuf;

use config_loader::Env;
use devices::Discover;
use provisioners_engine_provisioner::{Cancel, EngineProvisioner, EngineStore, EnsureError, Observer};
use provisioners_model_provisioner::{Catalog, ModelRef, admit};
use wire::config::{ModelsConfig, PoolConfig};
use wire::{ModelRecord, PoolId, PreparationStep, PreparedEngine, ReplicaId};

use crate::replica::with_causes;
use crate::{Prepare, PrepareError, Progress};

/// Fetches and builds engines into a cache.
pub struct EngineProvisioning {
    provisioner: EngineProvisioner,
    store: EngineStore,
    catalog: Catalog,
    models: ModelsConfig,
}

impl EngineProvisioning {
    /// `cache` is `paths.cache`, absolute; `models` are the rules for models.
    #[must_use]
    pub fn new(cache: impl Into<PathBuf>, models: &ModelsConfig, env: &Env) -> Self {
        let cache = cache.into();
        let store = EngineStore::new(&cache);
        let catalog = Catalog::new(&cache);
        let provisioner = EngineProvisioner::new(cache, env).with_model_rules(models);
        Self { store, catalog, provisioner, models: models.clone() }
    }

    /// Looks for cards in this way.
    #[must_use]
    pub fn with_cards(mut self, cards: impl Discover + 'static) -> Self {
        self.provisioner = self.provisioner.with_cards(Box::new(cards));
        self
    }
}

struct Report<'a>(&'a Progress);

impl Observer for Report<'_> {
    fn step(&self, step: &PreparationStep) {
        self.0.step(step.clone());
    }

    fn model_staged(&self, _pool: &PoolId, model: &ModelRecord) {
        self.0.model(model.clone());
    }
}

impl Prepare for EngineProvisioning {
    fn catalog(&self) -> Option<Catalog> {
        Some(self.catalog.clone())
    }

    fn prepare(
        &self,
        pool: &PoolConfig,
        replica: &ReplicaId,
        progress: &Progress,
        cancel: &Cancel,
    ) -> Result<PreparedEngine, PrepareError> {
        self.provisioner.ensure(pool, replica, &Report(progress), cancel).map_err(|error| PrepareError {
            message: with_causes(&error),
            remedy: remedy(&error).map(str::to_owned),
            may_heal: error.may_heal(),
        })
    }

    fn trusts(&self, model: &str) -> Result<(), String> {
        let reference = ModelRef::parse(model).map_err(|error| with_causes(&error))?;
        admit(&self.models, &reference, None)
    }

    fn engine(&self, digest: &str) -> Option<PathBuf> {
        let known = self.store.list().into_iter().find(|engine| engine.digest == digest);
        known.map(|engine| engine.binary)
    }
}

/// Most of these errors say what to do themselves.
fn remedy(error: &EnsureError) -> Option<&'static str> {
    match error {
        EnsureError::Preflight { .. } => Some("install what is missing, then preload the pool"),
        EnsureError::NoSource { .. } => Some(
            "correct one of the pool's sources (or name an existing binary with `path`), then preload the pool",
        ),
        EnsureError::Model { .. } => Some("correct `model` of the pool, then preload it"),
        EnsureError::Cache { .. } => Some("make room or correct the permissions, then preload the pool"),
        EnsureError::Config { .. } | EnsureError::Gpu { .. } | EnsureError::Cancelled => None,
    }
}
