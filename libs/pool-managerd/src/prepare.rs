//! The seam to provisioning: whoever can turn a pool's configuration into a [`PreparedEngine`].
//! The real one calls engine-provisioner; tests bring an engine that is already there.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use provisioners_engine_provisioner::Cancel;
use provisioners_model_provisioner::Catalog;
use wire::config::PoolConfig;
use wire::{ModelRecord, PreparationStep, PreparedEngine, ReplicaId};

/// Prepares engines. Called on a thread where blocking is allowed, one call at a time.
pub trait Prepare: Send + Sync + 'static {
    /// Fetches, builds and stages what the replica needs. Returns soon after `cancel`.
    ///
    /// # Errors
    /// See [`PrepareError`].
    fn prepare(
        &self,
        pool: &PoolConfig,
        replica: &ReplicaId,
        progress: &Progress,
        cancel: &Cancel,
    ) -> Result<PreparedEngine, PrepareError>;

    /// The binary of an engine of the store, by its digest; `None` when it is not there. Cheap.
    fn engine(&self, digest: &str) -> Option<PathBuf> {
        let _nothing_is_stored = digest;
        None
    }

    /// Whether the rules of this machine let a caller name this model; `Err` says which does not. Cheap, and
    /// nothing is fetched.
    ///
    /// # Errors
    /// The rule that it breaks, for people.
    fn trusts(&self, model: &str) -> Result<(), String> {
        let _there_are_no_rules = model;
        Ok(())
    }

    /// The models that are held for it; `None` where none are.
    fn catalog(&self) -> Option<Catalog> {
        None
    }
}

/// Why an engine could not be prepared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PrepareError {
    /// The whole error with its causes, for people.
    pub message: String,
    /// What to do.
    pub remedy: Option<String>,
    /// Whether it may succeed later without a change (network, disk): then it is tried again by itself.
    pub may_heal: bool,
}

type StepSink = Arc<dyn Fn(PreparationStep) + Send + Sync>;
type ModelSink = Arc<dyn Fn(ModelRecord) + Send + Sync>;

/// Where a preparation reports how it goes. Cheap to clone and to call.
#[derive(Clone)]
pub struct Progress {
    steps: StepSink,
    model: ModelSink,
}

impl Progress {
    pub(crate) fn new(
        steps: impl Fn(PreparationStep) + Send + Sync + 'static,
        model: impl Fn(ModelRecord) + Send + Sync + 'static,
    ) -> Self {
        Self { steps: Arc::new(steps), model: Arc::new(model) }
    }

    /// A step began, moved or ended; replaces the step with the same id.
    pub fn step(&self, step: PreparationStep) {
        (self.steps)(step);
    }

    /// The model is staged.
    pub fn model(&self, model: ModelRecord) {
        (self.model)(model);
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Progress")
    }
}

/// Prepares nothing: for tests of what does not come to that.
#[cfg(test)]
pub(crate) struct Nothing;

#[cfg(test)]
impl Prepare for Nothing {
    fn prepare(
        &self,
        _: &PoolConfig,
        _: &ReplicaId,
        _: &Progress,
        _: &Cancel,
    ) -> Result<PreparedEngine, PrepareError> {
        Err(PrepareError { message: "nothing".to_owned(), remedy: None, may_heal: false })
    }
}
