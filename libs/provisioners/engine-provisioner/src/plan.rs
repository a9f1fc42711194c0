//! What `ensure` would do and why, without doing it: nothing is fetched, written or built. Compilers
//! and `nvidia-smi` are asked for their versions, because the answer depends on them.

use std::fmt;
use std::path::{Path, PathBuf};

use provisioners_model_provisioner::{Cancel, ModelRef};
use wire::config::{EngineSource, PoolConfig};
use wire::{PoolId, PreparationStep, StepKind};

use crate::cuda::managed;
use crate::engine::Search;
use crate::error::EnsureError;
use crate::gpu::Target;
use crate::observer::{Observer, Step};
use crate::provisioner::EngineProvisioner;
use crate::store::Store;
use crate::{argv, bundle, flags, packages, source, tools};

/// The plan of one pool: `Display` is for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The pool.
    pub pool: PoolId,
    /// What would be done, in order, each with its reason.
    pub steps: Vec<String>,
    /// What would stop it on this machine, if anything.
    pub stopped_by: Option<String>,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "pool {}", self.pool)?;
        for (i, step) in self.steps.iter().enumerate() {
            writeln!(f, "  {}. {step}", i + 1)?;
        }
        match &self.stopped_by {
            None => Ok(()),
            Some(problem) => writeln!(f, "  would stop here: {problem}"),
        }
    }
}

struct Silent;
impl Observer for Silent {
    fn step(&self, _: &PreparationStep) {}
}

impl EngineProvisioner {
    /// Plans one pool. An error is a configuration that cannot work anywhere; what only this machine
    /// lacks is in [`Plan::stopped_by`].
    pub fn plan(&self, pool: &PoolConfig, cancel: &Cancel) -> Result<Plan, EnsureError> {
        let config = |problem| EnsureError::Config { pool: pool.id.clone(), problem };
        flags::checked_env(pool).map_err(config)?;
        flags::canonical(pool).map_err(config)?;
        let reference = ModelRef::parse(&pool.model).map_err(|e| config(e.to_string()))?;
        let mut plan = Plan { pool: pool.id.clone(), steps: Vec::new(), stopped_by: None };
        let target = match self.decide(pool, cancel) {
            Ok(decision) => decision.target,
            Err(error @ EnsureError::Gpu { .. }) => {
                plan.stopped_by = Some(error.to_string());
                return Ok(plan);
            }
            Err(other) => return Err(other),
        };
        plan.steps.push(target_line(&target, pool));
        plan.steps.push(model_line(&reference, self.models.staged_before(&reference)));
        self.engine_lines(pool, &target, &mut plan, cancel)?;
        let argv = argv::plan(pool, Path::new("MODEL"), &target).map_err(config)?;
        plan.steps.push(format!(
            "hand over {} replica(s) of: llama-server {}",
            pool.replicas,
            argv.join(" ")
        ));
        Ok(plan)
    }

    fn engine_lines(
        &self,
        pool: &PoolConfig,
        target: &Target,
        plan: &mut Plan,
        cancel: &Cancel,
    ) -> Result<(), EnsureError> {
        let step = Step::new(&Silent, &pool.id, StepKind::EngineProvision);
        let config = &pool.provisioning;
        let (host, cache, pool) = (&self.host, self.cache.as_path(), &pool.id);
        let (offline, remembers) = (self.offline, false);
        let search = Search { host, cache, pool, config, target, step: &step, cancel, offline, remembers };
        let compilers = search.compilers()?;
        for source in &config.sources {
            let name = source::describe(source);
            if let EngineSource::Path(path) = source {
                let verdict = if path.binary.is_file() { "use it as it is" } else { "not there, go on" };
                plan.steps.push(format!("{name}: {verdict}"));
                if path.binary.is_file() {
                    return Ok(());
                }
                continue;
            }
            let inputs = search.inputs(source, &compilers)?;
            let mut digest = inputs.digest();
            if let Some(imported) = bundle::imported(&Store::new(cache), &inputs, host.cpu()) {
                digest = imported.engine_digest;
            }
            if Store::new(cache).find(&digest).is_some() {
                plan.steps.push(format!(
                    "{name}: built before, use {}",
                    Store::new(cache).engine_dir(&digest).display()
                ));
                return Ok(());
            }
            let build = if source::compiles(source) { "build" } else { "use what is in it" };
            plan.steps.push(format!(
                "{name}: fetch, check against {}, {build} as {}",
                source::pin(source),
                &digest[..12]
            ));
        }
        if config.sources.iter().all(|source| matches!(source, EngineSource::Path(_))) {
            plan.stopped_by = Some("none of the binaries is there".to_owned());
            return Ok(());
        }
        if !config.sources.iter().any(source::compiles) {
            return Ok(());
        }
        plan.steps.push(tools_line(tools::on_path(host), tools::installed(cache)).to_owned());
        plan.steps.extend(toolkit_line(target, cache));
        let mut missing = search.missing()?;
        if config.allow_package_installs
            && let Some(command) = packages::command(host, &missing, packages::is_root())
        {
            plan.steps.push(format!("install what is missing, as the configuration allows: {command}"));
            missing.retain(|missing| missing.packages.is_empty());
        }
        if !missing.is_empty() {
            plan.stopped_by = Some(EnsureError::Preflight { pool: pool.clone(), missing }.to_string());
        }
        Ok(())
    }
}

fn target_line(target: &Target, pool: &PoolConfig) -> String {
    let policy = format!("{:?}", pool.provisioning.gpu).to_lowercase();
    match target {
        Target::Cpu => format!("build for the CPU (gpu: {policy})"),
        Target::Cuda { architectures, device_mask, nvcc } => format!(
            "build for CUDA {} on {device_mask} with {} (gpu: {policy})",
            architectures.join(";"),
            nvcc.display()
        ),
    }
}

fn model_line(reference: &ModelRef, staged: Option<PathBuf>) -> String {
    match reference {
        ModelRef::Builtin(_) => {
            format!("model {reference}: write it into the cache, it ships with the program")
        }
        ModelRef::File(path) if path.is_file() => format!("model {reference}: check its header and SHA-256"),
        ModelRef::File(_) => format!("model {reference}: it is not there; put it there first"),
        ModelRef::Https(_) | ModelRef::Hub { .. } => staged.map_or_else(
            || format!("model {reference}: fetch it into the cache and check its SHA-256"),
            |path| format!("model {reference}: fetched before, use {}", path.display()),
        ),
    }
}

fn toolkit_line(target: &Target, cache: &Path) -> Option<String> {
    let Target::Cuda { nvcc, .. } = target else { return None };
    let version = managed::VERSION;
    match (managed::is_managed(cache, nvcc), managed::installed(cache)) {
        (false, _) => None,
        (true, true) => Some(format!("CUDA toolkit {version}: the one in the cache")),
        (true, false) => Some(format!(
            "CUDA toolkit {version}: none on this machine, install it into the cache with pip ({} MiB to fetch)",
            managed::DOWNLOAD_MIB
        )),
    }
}

fn tools_line(on_path: bool, installed: bool) -> &'static str {
    match (on_path, installed) {
        (true, _) => "the first that works is used; CMake and Ninja: the ones on the PATH if new enough",
        (false, true) => "the first that works is used; CMake and Ninja: the ones in the cache",
        (false, false) => {
            "the first that works is used; CMake and Ninja: install them into the cache with pip"
        }
    }
}
