//! What everybody may see: the state of every pool, written by the replicas' tasks and read by the
//! API. Locks are held for a copy, never across a wait.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;
use wire::config::PoolConfig;
use wire::pool::{PoolList, ReplicaError};
use wire::{
    ModelRecord, Phase, PoolId, PoolView, PreparationStep, ReplicaId, ReplicaView, StepKind, StepStatus,
};

/// All pools, in the order of the config.
#[derive(Debug)]
pub(crate) struct Board {
    pools: Vec<PoolEntry>,
}

#[derive(Debug)]
struct PoolEntry {
    config: Arc<PoolConfig>,
    state: Mutex<PoolState>,
}

#[derive(Debug)]
struct PoolState {
    steps: Vec<PreparationStep>,
    model: Option<ModelRecord>,
    replicas: Vec<ReplicaState>,
}

/// One replica, as its task last said.
#[derive(Debug)]
pub(crate) struct ReplicaState {
    pub(crate) id: ReplicaId,
    phase: Phase,
    since: Instant,
    pub(crate) engine_version: Option<String>,
    pub(crate) pid: Option<u32>,
    pub(crate) url: Option<String>,
    pub(crate) slots_total: u32,
    pub(crate) generation: u64,
    pub(crate) failures: u32,
    pub(crate) next_attempt: Option<Instant>,
    pub(crate) last_error: Option<ReplicaError>,
}

impl ReplicaState {
    fn new(id: ReplicaId) -> Self {
        Self {
            id,
            phase: Phase::Provisioning,
            since: Instant::now(),
            engine_version: None,
            pid: None,
            url: None,
            slots_total: 0,
            generation: 0,
            failures: 0,
            next_attempt: None,
            last_error: None,
        }
    }

    pub(crate) fn phase(&mut self, phase: Phase) {
        if self.phase != phase {
            self.phase = phase;
            self.since = Instant::now();
        }
        self.next_attempt = None;
        if !matches!(phase, Phase::Starting | Phase::Ready | Phase::Draining) {
            self.pid = None;
            self.url = None;
            self.slots_total = 0;
        }
    }

    fn view(&self, now: Instant) -> ReplicaView {
        let ms = |d: std::time::Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        ReplicaView {
            id: self.id.clone(),
            phase: self.phase,
            phase_ms: ms(now.saturating_duration_since(self.since)),
            engine_version: self.engine_version.clone(),
            pid: self.pid,
            url: self.url.clone(),
            slots_total: self.slots_total,
            slots_free: None,
            generation: self.generation,
            failures: self.failures,
            next_attempt_ms: self.next_attempt.map(|at| ms(at.saturating_duration_since(now))),
            last_error: self.last_error.clone(),
        }
    }
}

impl Board {
    pub(crate) fn new(pools: &[Arc<PoolConfig>]) -> Self {
        let entry = |config: &Arc<PoolConfig>| PoolEntry {
            config: Arc::clone(config),
            state: Mutex::new(PoolState {
                steps: Vec::new(),
                model: None,
                replicas: (0..config.replicas).map(ReplicaId::nth).map(ReplicaState::new).collect(),
            }),
        };
        Self { pools: pools.iter().map(entry).collect() }
    }

    pub(crate) fn list(&self) -> PoolList {
        PoolList { pools: self.pools.iter().map(PoolEntry::view).collect() }
    }

    pub(crate) fn view(&self, id: &str) -> Option<PoolView> {
        self.pools.iter().find(|p| p.config.id.as_str() == id).map(PoolEntry::view)
    }

    fn pool(&self, id: &PoolId) -> Option<&PoolEntry> {
        self.pools.iter().find(|p| p.config.id == *id)
    }
}

impl PoolEntry {
    fn lock(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn view(&self) -> PoolView {
        let state = self.lock();
        let now = Instant::now();
        PoolView {
            id: self.config.id.clone(),
            aliases: self.config.aliases.clone(),
            model_ref: self.config.model.clone(),
            model: state.model.clone(),
            steps: state.steps.clone(),
            replicas: state.replicas.iter().map(|r| r.view(now)).collect(),
        }
    }
}

/// One replica's place on the board. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Seat {
    board: Arc<Board>,
    pool: PoolId,
    replica: ReplicaId,
}

impl Seat {
    pub(crate) fn new(board: Arc<Board>, pool: PoolId, replica: ReplicaId) -> Self {
        Self { board, pool, replica }
    }

    /// Changes the replica's state.
    pub(crate) fn update(&self, change: impl FnOnce(&mut ReplicaState)) {
        if let Some(pool) = self.board.pool(&self.pool)
            && let Some(replica) = pool.lock().replicas.iter_mut().find(|r| r.id == self.replica)
        {
            change(replica);
        }
    }

    /// Adds a step, or replaces the one with the same id.
    pub(crate) fn step(&self, step: PreparationStep) {
        let Some(pool) = self.board.pool(&self.pool) else { return };
        let steps = &mut pool.lock().steps;
        match steps.iter_mut().find(|s| s.id == step.id) {
            Some(known) => *known = step,
            None => steps.push(step),
        }
    }

    /// The step of this replica's start-up.
    pub(crate) fn warmup(&self, status: StepStatus, description: impl Into<String>) {
        self.step(PreparationStep {
            id: self.warmup_id(),
            kind: StepKind::PoolWarmup,
            description: description.into(),
            status,
            bytes_done: None,
            bytes_total: None,
            estimated_ms: None,
        });
    }

    fn warmup_id(&self) -> String {
        let first = self.replica == ReplicaId::nth(0);
        let suffix = if first { String::new() } else { format!("-{}", self.replica) };
        format!("{}/warmup{suffix}", self.pool)
    }

    /// Ends the start-up step as failed, if there is one.
    pub(crate) fn warmup_failed(&self, description: &str) {
        let id = self.warmup_id();
        self.change_steps(|step| step.id == id, StepStatus::Failed, Some(description));
    }

    /// Changes the steps of the preparation that are under way; it is done by one replica at a time.
    pub(crate) fn preparation(&self, status: StepStatus, description: Option<&str>) {
        let under_way =
            |step: &PreparationStep| step.kind != StepKind::PoolWarmup && step.status == StepStatus::Running;
        self.change_steps(under_way, status, description);
    }

    /// What was under way is not any more.
    pub(crate) fn stopped(&self) {
        let id = self.warmup_id();
        let under_way = |step: &PreparationStep| {
            step.status == StepStatus::Running && (step.kind != StepKind::PoolWarmup || step.id == id)
        };
        self.change_steps(under_way, StepStatus::Pending, Some("stopped"));
    }

    fn change_steps(
        &self,
        which: impl Fn(&PreparationStep) -> bool,
        status: StepStatus,
        description: Option<&str>,
    ) {
        let Some(pool) = self.board.pool(&self.pool) else { return };
        for step in pool.lock().steps.iter_mut().filter(|step| which(step)) {
            step.status = status;
            if let Some(description) = description {
                description.clone_into(&mut step.description);
            }
        }
    }

    pub(crate) fn set_model(&self, model: Option<ModelRecord>) {
        if let (Some(pool), Some(model)) = (self.board.pool(&self.pool), model) {
            pool.lock().model = Some(model);
        }
    }

    pub(crate) fn model(&self) -> Option<ModelRecord> {
        self.board.pool(&self.pool)?.lock().model.clone()
    }
}
