//! What `ensure` would do and why, without doing it: nothing is fetched, written or built. The build tools
//! and `nvidia-smi` are asked for their versions, because the answer depends on them, and the sources of the
//! model and of an archive are asked once how large it is, unless the network is not to be used.

mod engine;
mod model;

use std::fmt;
use std::path::Path;

use provisioners_model_provisioner::{Cancel, ModelRef};
use serde::Serialize;
use wire::config::PoolConfig;
use wire::{PoolId, PreparationStep, StepKind};

use crate::engine::Search;
use crate::error::EnsureError;
use crate::gpu::{Decision, Target};
use crate::observer::{Observer, Step};
use crate::preflight::Report;
use crate::provisioner::EngineProvisioner;
use crate::{argv, flags, memory, source};

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
                self.model_step(pool, &reference, &mut plan, cancel)?;
                return Ok(plan);
            }
            Err(other) => return Err(other),
        };
        plan.steps.push(target_line(&decision, pool));
        let target = decision.target;
        let here = self.model_step(pool, &reference, &mut plan, cancel)?;
        let built = self.engine_steps(pool, &target, &mut plan, cancel)?;
        let pooled = here.as_deref().and_then(memory::pooled);
        let argv = argv::plan(pool, Path::new("MODEL"), pooled, &target).map_err(config)?;
        if let Some(problem) = built.and_then(|built| built.unknown_flag(&argv)) {
            plan.stopped(problem);
        }
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

/// As `1.8 MiB`.
pub(crate) fn mib(bytes: u64) -> String {
    format!("{}.{} MiB", bytes >> 20, ((bytes & 0xf_ffff) * 10) >> 20)
}
