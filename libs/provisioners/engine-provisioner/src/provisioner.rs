//! The front door: one pool in, prepared engines out.

use std::path::PathBuf;
use std::sync::Arc;

use config_loader::Env;
use devices::{Discover, Inventory, System, Way};
use provisioners_model_provisioner::{Cancel, ModelProvisioner, ModelRef, Network, StageEvent, VerifyFile};
use wire::config::{GpuPolicy, ModelsConfig, PoolConfig};
use wire::{MemoryEstimate, ModelRecord, PreparedEngine, ReplicaId, StepKind};

use crate::engine::{Engine, Search};
use crate::error::EnsureError;
use crate::gpu::{self, Decision, Target};
use crate::host::Host;
use crate::observer::{Observer, Step};
use crate::verifier::OwnersProgram;
use crate::{argv, cuda, flags, memory, recipe};

/// Prepares engines with one cache directory on one machine.
pub struct EngineProvisioner {
    pub(crate) cache: PathBuf,
    pub(crate) host: Host,
    pub(crate) models: ModelProvisioner,
    pub(crate) offline: bool,
    cards: Box<dyn Discover>,
}

impl EngineProvisioner {
    /// `cache` is `paths.cache`, absolute; `env` decides where programs are and what helpers see.
    #[must_use]
    pub fn new(cache: impl Into<PathBuf>, env: &Env) -> Self {
        let cache = cache.into();
        let cards = System::new(env.var("PATH"), Way::from_variable(env.var("LLAMA_ORCH_DEVICES")));
        let network = Network::from_vars(|name| env.var(name).map(ToOwned::to_owned));
        let models = ModelProvisioner::new(&cache).with_network(network);
        Self { cache, host: Host::new(env), models, offline: false, cards: Box::new(cards) }
    }

    /// Looks for cards in another way.
    #[must_use]
    pub fn with_cards(mut self, cards: Box<dyn Discover>) -> Self {
        self.cards = cards;
        self
    }

    /// Believes this instead of asking the disk how much room it has.
    #[must_use]
    pub fn with_free_disk(mut self, bytes: u64) -> Self {
        self.host = self.host.with_free_disk(bytes);
        self
    }

    /// Holds models to these rules (`models` of the configuration).
    #[must_use]
    pub fn with_model_rules(mut self, rules: &ModelsConfig) -> Self {
        let verifier = OwnersProgram::new(&self.host, &rules.verify_command);
        let verifier = verifier.map(|verifier| Arc::new(verifier) as Arc<dyn VerifyFile>);
        self.models = self.models.with_rules(rules.clone(), verifier);
        self
    }

    /// Uses only what is in the cache and on this machine; what is missing is an error that names it.
    #[must_use]
    pub fn offline(mut self, offline: bool) -> Self {
        self.models = self.models.offline(offline);
        self.offline = offline;
        self
    }

    /// Prepares one replica. Blocking: minutes when the engine has to be built, milliseconds when it
    /// is there. Safe to call from several threads and processes at once; one of them builds.
    pub fn ensure(
        &self,
        pool: &PoolConfig,
        replica: &ReplicaId,
        observer: &dyn Observer,
        cancel: &Cancel,
    ) -> Result<PreparedEngine, EnsureError> {
        let prepared = self.prepare(pool, observer, cancel)?;
        Ok(prepared.for_replica(pool, replica.clone()))
    }

    /// Prepares all replicas of a pool; the work is done once.
    pub fn ensure_pool(
        &self,
        pool: &PoolConfig,
        observer: &dyn Observer,
        cancel: &Cancel,
    ) -> Result<Vec<PreparedEngine>, EnsureError> {
        let prepared = self.prepare(pool, observer, cancel)?;
        Ok((0..pool.replicas).map(|n| prepared.for_replica(pool, ReplicaId::nth(n))).collect())
    }

    pub(crate) fn prepare(
        &self,
        pool: &PoolConfig,
        observer: &dyn Observer,
        cancel: &Cancel,
    ) -> Result<Prepared, EnsureError> {
        // What costs nothing first: a bad flag must not show after a ten-minute build.
        let config = |problem| EnsureError::Config { pool: pool.id.clone(), problem };
        let env = flags::checked_env(pool).map_err(config)?;
        flags::canonical(pool).map_err(config)?;
        recipe::definitions("", &Target::Cpu, &pool.provisioning.cmake_flags).map_err(config)?;
        let decision = self.decide(pool, cancel)?;
        if let Some(notice) = &decision.notice {
            observer.notice(&pool.id, notice);
        }
        let step = Step::new(observer, &pool.id, StepKind::EngineProvision);
        let search = self.search(pool, &decision.target, &step, cancel);
        if self.fetches(pool) {
            search.foresee().inspect_err(|error| failed(&step, error))?;
        }
        let model = self.stage(pool, observer, cancel)?;
        step.doing("looking for the engine");
        let engine = search.run().inspect_err(|error| failed(&step, error))?;
        let is = if engine.cached { "there" } else { "built" };
        step.completed(format!("{} is {is}", engine.version));
        let argv =
            argv::plan(pool, &model.path, memory::pooled(&model.path), &decision.target).map_err(config)?;
        if let Some(problem) = engine.survey.refusal(&engine.version, &argv) {
            return Err(config(problem));
        }
        let device_mask = match decision.target {
            Target::Cpu => None,
            Target::Cuda { device_mask, .. } => Some(device_mask),
        };
        let memory = memory::of(pool, &model.path, &argv);
        Ok(Prepared { engine, model, argv, env, device_mask, memory })
    }

    pub(crate) fn decide(&self, pool: &PoolConfig, cancel: &Cancel) -> Result<Decision, EnsureError> {
        let policy = pool.provisioning.gpu;
        let inventory = match policy {
            GpuPolicy::Off => Inventory::NoCard,
            _ => self.cards.look(&|| cancel.is_cancelled()),
        };
        if cancel.is_cancelled() {
            return Err(EnsureError::Cancelled);
        }
        let driver = inventory.cards().iter().find_map(|card| card.driver.as_deref());
        let nvcc = cuda::nvcc(pool.provisioning.toolkit, &self.host, &self.cache, driver);
        gpu::decide(policy, &pool.devices, &inventory, nvcc).map_err(|refusal| EnsureError::Gpu {
            pool: pool.id.clone(),
            problem: refusal.problem,
            remedy: refusal.remedy,
        })
    }

    fn stage(
        &self,
        pool: &PoolConfig,
        observer: &dyn Observer,
        cancel: &Cancel,
    ) -> Result<ModelRecord, EnsureError> {
        let reference = ModelRef::parse(&pool.model)
            .map_err(|e| EnsureError::Config { pool: pool.id.clone(), problem: e.to_string() })?;
        let step = Step::new(observer, &pool.id, StepKind::ModelFetch);
        step.doing(format!("staging {reference}"));
        let on_event = |event: StageEvent| match event {
            StageEvent::Progress(p) if p.bytes_total == 0 => step.doing(p.description),
            StageEvent::Progress(p) => step.progress(|| p.description, p.bytes_done, p.bytes_total),
            StageEvent::Notice(text) => observer.notice(&pool.id, &text),
        };
        let staged = self.models.stage(&reference, pool.model_sha256.as_deref(), &on_event, cancel);
        match staged {
            Ok(model) => {
                step.completed(format!("{} ({}, {} bytes)", model.id, model.quantisation, model.size_bytes));
                observer.model_staged(&pool.id, &model);
                Ok(model)
            }
            Err(error) if error.is_cancelled() => Err(EnsureError::Cancelled),
            Err(error) => {
                step.failed(error.to_string());
                Err(EnsureError::Model { pool: pool.id.clone(), source: Box::new(error) })
            }
        }
    }

    /// Whether the model has to come over the network.
    pub(crate) fn fetches(&self, pool: &PoolConfig) -> bool {
        let reference = ModelRef::parse(&pool.model);
        let remote = |reference: &ModelRef| matches!(reference, ModelRef::Hub { .. } | ModelRef::Https(_));
        reference.is_ok_and(|reference| remote(&reference) && self.models.staged_before(&reference).is_none())
    }

    fn search<'a>(
        &'a self,
        pool: &'a PoolConfig,
        target: &'a Target,
        step: &'a Step<'a>,
        cancel: &'a Cancel,
    ) -> Search<'a> {
        let (host, cache, config) = (&self.host, self.cache.as_path(), &pool.provisioning);
        let (pool, offline, remembers) = (&pool.id, self.offline, true);
        Search { host, cache, pool, config, target, step, cancel, offline, remembers }
    }
}

/// The step ends with it, unless somebody asked to stop.
fn failed(step: &Step<'_>, error: &EnsureError) {
    if !matches!(error, EnsureError::Cancelled) {
        step.failed(error.to_string());
    }
}

/// What all replicas of a pool share.
pub(crate) struct Prepared {
    pub(crate) engine: Engine,
    pub(crate) model: ModelRecord,
    argv: Vec<String>,
    env: std::collections::BTreeMap<String, String>,
    device_mask: Option<String>,
    memory: Option<MemoryEstimate>,
}

impl Prepared {
    fn for_replica(&self, pool: &PoolConfig, replica: ReplicaId) -> PreparedEngine {
        PreparedEngine {
            binary_path: self.engine.binary.clone(),
            flags: self.argv.clone(),
            port: 0,
            host: "127.0.0.1".to_owned(),
            model_path: self.model.path.clone(),
            engine_version: self.engine.version.clone(),
            pool_id: pool.id.clone(),
            replica_id: replica,
            device_mask: self.device_mask.clone(),
            memory: self.memory,
            engine_digest: self.engine.digest.clone(),
            build_flags: self.engine.build_flags.clone(),
            model_digest: self.model.digest.clone(),
            ctx: pool.ctx,
            slots: pool.slots,
            env: self.env.clone(),
        }
    }
}
