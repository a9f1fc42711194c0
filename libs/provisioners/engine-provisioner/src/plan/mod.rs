//! What `ensure` would do and why, without doing it: nothing is fetched, written or built. The build tools
//! and `nvidia-smi` are asked for their versions, because the answer depends on them, and the sources of the
//! model and of an archive are asked once how large it is, unless the network is not to be used.

mod engine;
mod model;
mod verdict;

use std::fmt;
use std::path::Path;

use provisioners_model_provisioner::{Cancel, ModelRef, StageError};
use rustix::fs::Access;
use serde::Serialize;
use wire::config::PoolConfig;
use wire::{PoolId, PreparationStep, StepKind};

pub use verdict::{Blocker, Verdict};

use crate::engine::Search;
use crate::error::EnsureError;
use crate::gpu::{Decision, Target};
use crate::observer::{Observer, Step};
use crate::preflight::{Check, Report};
use crate::provisioner::EngineProvisioner;
use crate::{argv, flags, memory, recipe, source};

/// The plan of one pool: `Display` is for people, without what stops it, which [`Verdict`] says of all pools at
/// the end; JSON is for programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The pool.
    pub pool: PoolId,
    /// What a build needs of this machine, and what of it is there; empty where nothing is compiled.
    pub preflight: Report,
    /// What would be done, in order, each with its size and its reason.
    pub steps: Vec<String>,
    /// Everything that would stop it on this machine, in the order in which a run would come to it.
    pub stopped_by: Vec<Blocker>,
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
        Ok(())
    }
}

impl Plan {
    /// Everything that would stop it, not the first alone; each once.
    fn stopped(&mut self, error: &EnsureError) {
        let blocker = Blocker::of(&self.pool, error);
        self.stop(blocker);
    }

    /// What preflight misses and nobody installs, put at this place among what stops it.
    fn missing(&mut self, at: usize, stays: impl Fn(&Check) -> bool) {
        let left: Vec<_> = self.preflight.missing().filter(|check| stays(check)).cloned().collect();
        if left.is_empty() {
            return;
        }
        // The code is preflight's; each line is a problem of its own.
        let pool = self.pool.clone();
        let code = EnsureError::Preflight { pool, report: Report::default() }.exit_code();
        let missing = left.iter().map(|check| Blocker { exit_code: code, problem: check.in_words() });
        self.stopped_by.splice(at..at, missing);
    }

    fn stop(&mut self, blocker: Blocker) {
        if !self.stopped_by.contains(&blocker) {
            self.stopped_by.push(blocker);
        }
    }
}

struct Silent;
impl Observer for Silent {
    fn step(&self, _: &PreparationStep) {}
}

impl EngineProvisioner {
    /// Plans one pool. What is wrong with its configuration and what this machine lacks is in
    /// [`Plan::stopped_by`], all of it.
    ///
    /// # Errors
    /// Someone asked to stop.
    pub fn plan(&self, pool: &PoolConfig, cancel: &Cancel) -> Result<Plan, EnsureError> {
        let config = |problem| EnsureError::Config { pool: pool.id.clone(), problem };
        let preflight = Report::default();
        let mut plan = Plan { pool: pool.id.clone(), preflight, steps: Vec::new(), stopped_by: Vec::new() };
        let build_flags = recipe::definitions("", &Target::Cpu, &pool.provisioning.cmake_flags);
        let checks = [flags::checked_env(pool).err(), flags::canonical(pool).err(), build_flags.err()];
        checks.into_iter().flatten().for_each(|problem| plan.stopped(&config(problem)));
        let reference = match ModelRef::parse(&pool.model) {
            Ok(reference) => Some(reference),
            Err(error) => {
                plan.stopped(&config(format!("model: {error}")));
                None
            }
        };
        let model = |plan: &mut Plan| match &reference {
            Some(reference) => self.model_step(pool, reference, plan, cancel),
            None => Ok(None),
        };
        let decision = match self.decide(pool, cancel) {
            Ok(decision) => decision,
            Err(error @ EnsureError::Gpu { .. }) => {
                // Whoever has to mend that wants to know of everything else as well.
                plan.stopped(&error);
                model(&mut plan)?;
                plan.preflight = self.without_card(pool, cancel)?;
                plan.missing(plan.stopped_by.len(), |_| true);
                return Ok(plan);
            }
            Err(other) => return Err(other),
        };
        plan.steps.push(target_line(&decision, pool));
        let target = decision.target;
        let before = plan.stopped_by.len();
        let here = model(&mut plan)?;
        self.model_room(pool, reference.as_ref(), &mut plan);
        let missing = if self.fetches(pool) { before } else { plan.stopped_by.len() };
        let built = self.engine_steps(pool, &target, missing, &mut plan, cancel)?;
        let pooled = here.as_deref().and_then(memory::pooled);
        let argv = match argv::plan(pool, Path::new("MODEL"), pooled, &target) {
            Ok(argv) => argv,
            Err(problem) => {
                plan.stopped(&config(problem));
                return Ok(plan);
            }
        };
        if let Some(problem) = built.and_then(|built| built.unknown_flag(&argv)) {
            plan.stopped(&config(problem));
        }
        plan.steps.push(handed_over(pool, here.as_deref(), &argv));
        Ok(plan)
    }

    /// A model that comes into the cache has to be written there.
    fn model_room(&self, pool: &PoolConfig, reference: Option<&ModelRef>, plan: &mut Plan) {
        let Some(reference) = reference.filter(|reference| !matches!(reference, ModelRef::File(_))) else {
            return;
        };
        if self.models.staged_before(reference).is_none()
            && let Some(source) = unwritable(&self.cache)
        {
            let problem = StageError::Store { path: self.cache.join("models"), source };
            plan.stopped(&EnsureError::Model { pool: pool.id.clone(), source: Box::new(problem) });
        }
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

/// Why nothing can be written in `dir`, which need not be there yet.
fn unwritable(dir: &Path) -> Option<std::io::Error> {
    let there = dir.ancestors().find(|dir| dir.exists())?;
    if !there.is_dir() {
        return Some(std::io::Error::from(std::io::ErrorKind::NotADirectory));
    }
    rustix::fs::access(there, Access::WRITE_OK | Access::EXEC_OK).err().map(Into::into)
}

fn handed_over(pool: &PoolConfig, model: Option<&Path>, argv: &[String]) -> String {
    let memory = match model.and_then(|model| memory::of(pool, model, argv)) {
        None => "its memory is estimated once the model is here".to_owned(),
        Some(memory) => {
            let (total, weights, kv) = (memory.total_bytes(), memory.weights_bytes, memory.kv_bytes);
            format!("each about {} of memory: weights {}, context {}", mib(total), mib(weights), mib(kv))
        }
    };
    format!("hand over {} replica(s), {memory}, of: llama-server {}", pool.replicas, argv.join(" "))
}

fn target_line(decision: &Decision, pool: &PoolConfig) -> String {
    let policy = format!("{:?}", pool.provisioning.gpu).to_lowercase();
    let because = decision.notice.as_ref().map_or_else(String::new, |notice| format!("; {notice}"));
    match &decision.target {
        Target::Cpu => format!("build for the CPU (gpu: {policy}{because})"),
        Target::Cuda { architectures, device_mask, nvcc, .. } => format!(
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
