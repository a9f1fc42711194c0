//! What `ensure` would do and why, without doing it: nothing is fetched, written or built. The build tools
//! and `nvidia-smi` are asked for their versions, because the answer depends on them, and the model's source
//! is asked once how large it is, unless the network is not to be used.

use std::fmt;
use std::path::{Path, PathBuf};

use provisioners_model_provisioner::{Cancel, FetchError, ModelRef};
use serde::Serialize;
use wire::config::{EngineSource, PoolConfig};
use wire::{PoolId, PreparationStep, StepKind};

use crate::cuda::managed;
use crate::engine::Search;
use crate::error::EnsureError;
use crate::gpu::{Decision, Target};
use crate::observer::{Observer, Step};
use crate::preflight::{self, Report};
use crate::provisioner::EngineProvisioner;
use crate::store::Store;
use crate::tools::{self, BuildTools, Builder, Choice};
use crate::{argv, bundle, flags, memory, packages, source};

/// The plan of one pool: `Display` is for people, JSON for programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The pool.
    pub pool: PoolId,
    /// What a build needs of this machine, and what of it is there; empty where nothing is compiled.
    pub preflight: Report,
    /// What would be done, in order, each with its size and its reason.
    pub steps: Vec<String>,
    /// What would stop it on this machine, if anything.
    pub stopped_by: Option<String>,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "pool {}", self.pool)?;
        if !self.preflight.checks.is_empty() {
            writeln!(f, "  this machine, [in brackets the key of the configuration that changes it]")?;
        }
        for check in &self.preflight.checks {
            writeln!(f, "    {check}")?;
        }
        writeln!(f, "  steps")?;
        for (i, step) in self.steps.iter().enumerate() {
            writeln!(f, "    {}. {step}", i + 1)?;
        }
        match &self.stopped_by {
            None => Ok(()),
            Some(problem) => writeln!(f, "  would stop here: {problem}"),
        }
    }
}

impl Plan {
    /// Everything that would stop it, not the first alone.
    fn stopped(&mut self, problem: String) {
        self.stopped_by = Some(match self.stopped_by.take() {
            None => problem,
            Some(before) => format!("{before}; {problem}"),
        });
    }
}

struct Silent;
impl Observer for Silent {
    fn step(&self, _: &PreparationStep) {}
}

impl EngineProvisioner {
    /// Plans one pool. An error is a configuration that cannot work anywhere; what only this machine
    /// lacks is in [`Plan::preflight`] and [`Plan::stopped_by`].
    pub fn plan(&self, pool: &PoolConfig, cancel: &Cancel) -> Result<Plan, EnsureError> {
        let config = |problem| EnsureError::Config { pool: pool.id.clone(), problem };
        flags::checked_env(pool).map_err(config)?;
        flags::canonical(pool).map_err(config)?;
        let reference = ModelRef::parse(&pool.model).map_err(|e| config(e.to_string()))?;
        let preflight = Report::default();
        let (id, steps) = (pool.id.clone(), Vec::new());
        let mut plan = Plan { pool: id, preflight, steps, stopped_by: None };
        let decision = match self.decide(pool, cancel) {
            Ok(decision) => decision,
            Err(error @ EnsureError::Gpu { .. }) => {
                // Whoever has to mend that wants to know of everything else as well.
                plan.stopped(error.to_string());
                plan.preflight = self.without_card(pool, cancel)?;
                let size = self.size_of(pool, &reference, &mut plan, cancel)?;
                let staged = self.models.staged_before(&reference);
                plan.steps.push(model_line(&reference, staged.as_deref(), &size, self.offline));
                return Ok(plan);
            }
            Err(other) => return Err(other),
        };
        plan.steps.push(target_line(&decision, pool));
        let target = decision.target;
        let staged = self.models.staged_before(&reference);
        let size = self.size_of(pool, &reference, &mut plan, cancel)?;
        plan.steps.push(model_line(&reference, staged.as_deref(), &size, self.offline));
        self.engine_lines(pool, &target, &mut plan, cancel)?;
        let here = match reference {
            ModelRef::File(path) if path.is_file() => Some(path),
            _ => staged,
        };
        let pooled = here.as_deref().and_then(memory::pooled);
        let argv = argv::plan(pool, Path::new("MODEL"), pooled, &target).map_err(config)?;
        let estimate = here.and_then(|model| memory::of(pool, &model, &argv));
        let memory = estimate.map_or_else(
            || "its memory is estimated once the model is here".to_owned(),
            |memory| {
                let (total, weights, kv) = (memory.total_bytes(), memory.weights_bytes, memory.kv_bytes);
                format!("each about {} of memory: weights {}, context {}", mib(total), mib(weights), mib(kv))
            },
        );
        let (replicas, argv) = (pool.replicas, argv.join(" "));
        plan.steps.push(format!("hand over {replicas} replica(s), {memory}, of: llama-server {argv}"));
        Ok(plan)
    }

    /// What a build needs of this machine apart from its cards.
    fn without_card(&self, pool: &PoolConfig, cancel: &Cancel) -> Result<Report, EnsureError> {
        let step = Step::new(&Silent, &pool.id, StepKind::EngineProvision);
        let (host, cache, config, target) =
            (&self.host, self.cache.as_path(), &pool.provisioning, &Target::Cpu);
        let (pool, step, offline, remembers) = (&pool.id, &step, self.offline, false);
        let search = Search { host, cache, pool, config, target, step, cancel, offline, remembers };
        match config.sources.iter().any(source::compiles) {
            true => search.report(),
            false => Ok(Report::default()),
        }
    }

    /// How large the model is, in words; a model that its source refuses, or that does not fit, stops the plan.
    fn size_of(
        &self,
        pool: &PoolConfig,
        reference: &ModelRef,
        plan: &mut Plan,
        cancel: &Cancel,
    ) -> Result<String, EnsureError> {
        if let Some(bytes) = self.models.known_bytes(reference) {
            return Ok(mib(bytes));
        }
        if let ModelRef::File(path) = reference {
            plan.stopped(format!("the model file {} is not there", path.display()));
            return Ok("unknown".to_owned());
        }
        match self.models.announced_bytes(reference, pool.model_sha256.as_deref(), cancel) {
            Ok(Some(bytes)) => {
                let free = self.host.free_disk(&self.cache);
                if bytes > free {
                    let (wanted, free, cache) = (mib(bytes), mib(free), self.cache.display());
                    plan.stopped(format!(
                        "the model has {wanted}, and {free} are free in {cache}: make room or set LLAMA_ORCH_CACHE"
                    ));
                }
                Ok(format!("{} to fetch", mib(bytes)))
            }
            Ok(None) => Ok("its source does not say how large it is".to_owned()),
            Err(FetchError::Cancelled) => Err(EnsureError::Cancelled),
            Err(FetchError::Unreachable { problem, .. }) => {
                Ok(format!("its size is unknown, because its source does not answer: {problem}"))
            }
            Err(refusal) => {
                plan.stopped(format!("model {reference}: {refusal}"));
                Ok("its source refuses it".to_owned())
            }
        }
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
        if config.sources.iter().any(source::compiles) {
            plan.preflight = search.report()?;
        }
        let mut usable = 0;
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
            if let Some(built) = Store::new(cache).find(&digest) {
                let (size, dir) = (mib(built.binary_bytes), Store::new(cache).engine_dir(&digest));
                plan.steps.push(format!("{name}: built before, use {} ({size})", dir.display()));
                return Ok(());
            }
            if let Some(reason) = source::absent(source, cache).filter(|_| offline) {
                plan.steps.push(format!("{name}: passed over, {reason}"));
                continue;
            }
            usable += 1;
            let build = if source::compiles(source) { "build" } else { "use what is in it" };
            plan.steps.push(format!(
                "{name}: fetch ({}), check against {}, {build} as {}, because nothing in the cache was built from the same",
                source::cost(source, cache),
                source::pin(source),
                &digest[..12]
            ));
        }
        if usable == 0 && offline {
            plan.stopped(
                "offline: neither an engine nor the source of one is here; run once with a network"
                    .to_owned(),
            );
            return Ok(());
        }
        if config.sources.iter().all(|source| matches!(source, EngineSource::Path(_))) {
            plan.stopped("none of the binaries is there".to_owned());
            return Ok(());
        }
        if !config.sources.iter().any(source::compiles) {
            return Ok(());
        }
        plan.steps.push(tools_line(&BuildTools::look(host, cache, cancel)));
        plan.steps.extend(toolkit_line(target, cache));
        plan.steps.push(format!(
            "the build: up to {} of objects while it goes on, up to {} at once, as cores and free memory allow",
            mib(preflight::objects(target)),
            match host.jobs() {
                1 => "one compiler".to_owned(),
                jobs => format!("{jobs} compilers"),
            }
        ));
        self.stop(plan, config.allow_package_installs);
        Ok(())
    }

    /// What is missing stops it, but for what may be installed.
    fn stop(&self, plan: &mut Plan, may_install: bool) {
        let command = match may_install {
            true => packages::command(&self.host, &plan.preflight, packages::is_root()),
            false => None,
        };
        if let Some(command) = &command {
            plan.steps.push(format!("install what is missing, as the configuration allows: {command}"));
        }
        let installed = |check: &&preflight::Check| command.is_some() && check.has_packages();
        let left: Vec<_> = plan.preflight.missing().filter(|check| !installed(check)).collect();
        if !left.is_empty() {
            let names: Vec<_> = left.iter().map(|check| check.what.as_str()).collect();
            plan.stopped(format!("what is MISSING above: {}", names.join(", ")));
        }
    }
}

fn target_line(decision: &Decision, pool: &PoolConfig) -> String {
    let policy = format!("{:?}", pool.provisioning.gpu).to_lowercase();
    let because = decision.notice.as_ref().map_or_else(String::new, |notice| format!("; {notice}"));
    match &decision.target {
        Target::Cpu => format!("build for the CPU (gpu: {policy}{because})"),
        Target::Cuda { architectures, device_mask, nvcc } => format!(
            "build for CUDA {} on {device_mask} with {} (gpu: {policy}{because})",
            architectures.join(";"),
            nvcc.display()
        ),
    }
}

fn model_line(reference: &ModelRef, staged: Option<&Path>, size: &str, offline: bool) -> String {
    match (reference, staged) {
        (ModelRef::Builtin(_), _) => {
            format!("model {reference} ({size}): write it into the cache, it ships with the program")
        }
        (ModelRef::File(path), _) if path.is_file() => {
            format!("model {reference} ({size}): check its header and SHA-256")
        }
        (ModelRef::File(_), None) => format!("model {reference}: it is not there; put it there first"),
        (ModelRef::File(_), Some(path)) => {
            format!("model {reference} ({size}): it came in a bundle, use {}", path.display())
        }
        (_, None) if offline => format!(
            "model {reference} (its size is unknown): offline, and it is not in this cache; the hub's own cache is looked at"
        ),
        (_, None) => format!("model {reference} ({size}): fetch it into the cache and check its SHA-256"),
        (_, Some(path)) => {
            format!("model {reference} ({size}): fetched before, use {}", path.display())
        }
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

fn tools_line(tools: &BuildTools) -> String {
    let first = "the first source that works is used; it is built with";
    match tools.choice() {
        Choice::Ready(chosen) => {
            format!("{first} {} and {}", chosen.cmake.display(), chosen.builder.program().display())
        }
        Choice::Install(instead) => {
            let make = instead.and_then(|tools| match tools.builder {
                Builder::Make(path) => Some(path),
                Builder::Ninja(_) => None,
            });
            let else_make = |path: PathBuf| format!("; {} where pip cannot", path.display());
            format!(
                "{first} CMake {} and Ninja {}, which pip installs into the cache ({} MiB to fetch, {} MiB there){}",
                tools::CMAKE,
                tools::NINJA,
                tools::DOWNLOAD_MIB,
                tools::DISK_MIB,
                make.map_or_else(String::new, else_make)
            )
        }
    }
}

/// As `1.8 MiB`.
pub(crate) fn mib(bytes: u64) -> String {
    format!("{}.{} MiB", bytes >> 20, ((bytes & 0xf_ffff) * 10) >> 20)
}
