//! The model's part of a plan: where it is already, how large it is, and what would refuse it.

use std::path::PathBuf;

use provisioners_model_provisioner::{Announced, Cancel, FetchError, ModelRef, StageError};
use wire::config::PoolConfig;

use super::{Blocker, Plan, mib};
use crate::error::EnsureError;
use crate::provisioner::EngineProvisioner;

/// INTERFACES lists it: the model.
const MODEL: u8 = 6;

impl EngineProvisioner {
    /// Adds the step, and what stops it. Returns the model's file where it is here already.
    pub(super) fn model_step(
        &self,
        pool: &PoolConfig,
        reference: &ModelRef,
        plan: &mut Plan,
        cancel: &Cancel,
    ) -> Result<Option<PathBuf>, EnsureError> {
        let pinned = pool.model_sha256.as_deref();
        if let Err(problem) = self.models.foresee(reference, pinned) {
            let step = match &problem {
                StageError::Untrusted { .. } => {
                    "refused by `models` of the configuration, nothing is fetched"
                }
                _ => "it cannot be used",
            };
            plan.steps.push(format!("model {reference}: {step}"));
            plan.stopped(&refused(pool, problem));
            return Ok(None);
        }
        let staged = self.models.staged_before(reference);
        let (step, here) = match (reference, staged) {
            (ModelRef::Builtin(_), Some(path)) => {
                (format!("it ships with the program, use {}", path.display()), Some(path))
            }
            (ModelRef::Builtin(_), None) => {
                ("write it into the cache, it ships with the program".to_owned(), None)
            }
            (ModelRef::File(path), _) if path.is_file() => {
                ("check its header and SHA-256".to_owned(), Some(path.clone()))
            }
            (ModelRef::File(_), Some(path)) => {
                (format!("it came in a bundle, use {}", path.display()), Some(path))
            }
            (ModelRef::File(_), None) => ("it is not there".to_owned(), None),
            (ModelRef::Https(_) | ModelRef::Hub { .. }, Some(path)) => {
                (format!("fetched before, use {}", path.display()), Some(path))
            }
            (ModelRef::Https(_) | ModelRef::Hub { .. }, None) => {
                return self.model_to_fetch(pool, reference, plan, cancel);
            }
        };
        let size = self.models.known_bytes(reference).map_or("unknown".to_owned(), mib);
        plan.steps.push(format!("model {reference} ({size}): {step}"));
        Ok(here)
    }

    fn model_to_fetch(
        &self,
        pool: &PoolConfig,
        reference: &ModelRef,
        plan: &mut Plan,
        cancel: &Cancel,
    ) -> Result<Option<PathBuf>, EnsureError> {
        let mut here = None;
        let fetch = "fetch it into the cache and check its SHA-256";
        let step = match self.models.announced(reference, pool.model_sha256.as_deref(), cancel) {
            Ok(Announced { bytes, in_hub_cache: Some(path) }) => {
                let size = bytes.map_or("its size is unknown".to_owned(), mib);
                let step = format!("({size}): in the hub's cache of this machine, check its SHA-256 and use");
                let step = format!("{step} {}", path.display());
                here = Some(path);
                step
            }
            Ok(Announced { bytes: Some(bytes), in_hub_cache: None }) => {
                let free = self.host.free_disk(&self.cache);
                if bytes > free {
                    let (wanted, free, cache) = (mib(bytes), mib(free), self.cache.display());
                    let problem = format!(
                        "the model has {wanted}, and {free} are free in {cache}: make room or set LLAMA_ORCH_CACHE"
                    );
                    plan.stop(Blocker { exit_code: MODEL, problem });
                }
                format!("({} to fetch): {fetch}", mib(bytes))
            }
            Ok(Announced { bytes: None, in_hub_cache: None }) => {
                format!("(its source does not say how large it is): {fetch}")
            }
            Err(FetchError::Cancelled) => return Err(EnsureError::Cancelled),
            Err(FetchError::Unreachable { problem, .. }) => {
                format!("(its size is unknown, because its source does not answer: {problem}): {fetch}")
            }
            Err(refusal) => {
                let step = match &refusal {
                    FetchError::Offline { .. } => {
                        "(its size is unknown): neither in this cache nor in the hub's own".to_owned()
                    }
                    FetchError::Untrusted { .. } => {
                        "(its source names no SHA-256): refused by `models` of the configuration, nothing is fetched"
                            .to_owned()
                    }
                    _ => format!("(its source refuses it): {fetch}"),
                };
                plan.stopped(&refused(pool, StageError::of_fetch(reference, refusal)));
                step
            }
        };
        plan.steps.push(format!("model {reference} {step}"));
        Ok(here)
    }
}

fn refused(pool: &PoolConfig, problem: StageError) -> EnsureError {
    EnsureError::Model { pool: pool.id.clone(), source: Box::new(problem) }
}
