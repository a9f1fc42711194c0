//! Compiling for CUDA where no card is: the managed toolkit, one compute capability, and no engine in
//! the store, because nobody there can ask the binary which cards it sees.

use std::path::PathBuf;

use provisioners_model_provisioner::Cancel;
use wire::StepKind;
use wire::config::{EngineSource, PoolConfig};

use super::managed;
use crate::engine::Search;
use crate::error::{Attempt, EnsureError, SourceFailure};
use crate::gpu::Target;
use crate::observer::{Observer, Step};
use crate::provisioner::EngineProvisioner;
use crate::source;
use crate::store::Store;

impl EngineProvisioner {
    /// Compiles and links the pool's first source for `architecture` (as `86`) and returns the binary.
    /// What was compiled before is not compiled again.
    ///
    /// # Errors
    /// As `ensure`.
    pub fn compile_for_cuda(
        &self,
        pool: &PoolConfig,
        architecture: &str,
        observer: &dyn Observer,
        cancel: &Cancel,
    ) -> Result<PathBuf, EnsureError> {
        let architectures = vec![architecture.to_owned()];
        let nvcc = managed::nvcc(&self.cache);
        let target = Target::Cuda { nvcc, architectures, device_mask: String::new(), driver: None };
        let step = Step::new(observer, &pool.id, StepKind::EngineProvision);
        let search = Search {
            host: &self.host,
            cache: &self.cache,
            pool: &pool.id,
            config: &pool.provisioning,
            target: &target,
            step: &step,
            cancel,
            offline: self.offline,
            remembers: true,
        };
        let _materials = Store::new(&self.cache).uses_materials(cancel)?;
        search.preflight()?;
        let mut sources = pool.provisioning.sources.iter();
        let Some(source) = sources.find(|source| !matches!(source, EngineSource::Path(_))) else {
            let problem = "provisioning.sources: there is none to compile".to_owned();
            return Err(EnsureError::Config { pool: pool.id.clone(), problem });
        };
        let compilers = search.compilers()?;
        let inputs = search.inputs(source, &compilers)?;
        let on_wait = || step.doing("waiting for another process that builds the same engine");
        let _lock = Store::new(&self.cache).lock(&inputs.digest(), &on_wait, cancel)?;
        match search.build(source, &compilers, &inputs) {
            Ok(built) => Ok(built.binary),
            Err(SourceFailure::Stop(error)) => Err(error),
            Err(SourceFailure::Next(kind, reason)) => {
                let attempts = vec![Attempt { source: source::describe(source), kind, reason }];
                Err(EnsureError::NoSource { pool: pool.id.clone(), attempts })
            }
        }
    }
}
