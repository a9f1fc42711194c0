//! What everybody may see: the state of every pool, written by the replicas' tasks and read by the
//! API. Locks are held for a copy, never across a wait.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use wire::config::PoolConfig;
use wire::pool::{PoolList, ReplicaError};
use wire::{
    ConfigView, Determinism, ModelRecord, PerformanceHints, Phase, PoolId, PoolView, PreparationStep,
    ReplicaId, ReplicaKey, ReplicaView, StepKind, StepStatus, Wanted,
};

/// All pools, in the order of the config.
#[derive(Debug)]
pub(crate) struct Board {
    pools: Mutex<Vec<Arc<PoolEntry>>>,
    /// Counts changes, for those who wait for one.
    changed: watch::Sender<u64>,
    /// How far the configuration file is followed; `None` where there is none.
    configuration: Mutex<Option<ConfigView>>,
}

#[derive(Debug)]
struct PoolEntry {
    id: PoolId,
    state: Mutex<PoolState>,
}

#[derive(Debug)]
struct PoolState {
    config: Arc<PoolConfig>,
    wanted: Wanted,
    steps: Vec<PreparationStep>,
    model: Option<ModelRecord>,
    replicas: Vec<ReplicaState>,
}

/// One replica, as its task last said.
#[derive(Debug)]
pub(crate) struct ReplicaState {
    id: ReplicaId,
    phase: Phase,
    since: Instant,
    pub(crate) engine_version: Option<String>,
    pub(crate) pid: Option<u32>,
    pub(crate) url: Option<String>,
    pub(crate) slots_total: u32,
    pub(crate) device_mask: Option<String>,
    pub(crate) load_ms: Option<u64>,
    pub(crate) determinism: Option<Determinism>,
    pub(crate) generation: u64,
    pub(crate) failures: u32,
    /// Since the manager started, by cause.
    pub(crate) losses: BTreeMap<String, u64>,
    /// When a probe last found it well, or the task that watches it was last awake.
    watched: Instant,
    pub(crate) next_attempt: Option<Instant>,
    pub(crate) last_error: Option<ReplicaError>,
    /// The last request to run that it has followed.
    pub(crate) request: u64,
    /// Generations that the end of its last drain cut off.
    pub(crate) cut_off: u32,
    /// The number of what it runs, or tries to.
    pub(crate) target: u64,
    /// The last target that did not serve, and why.
    pub(crate) refused: Option<(u64, ReplicaError)>,
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
            device_mask: None,
            load_ms: None,
            determinism: None,
            generation: 0,
            failures: 0,
            losses: BTreeMap::new(),
            watched: Instant::now(),
            next_attempt: None,
            last_error: None,
            request: 0,
            cut_off: 0,
            target: 0,
            refused: None,
        }
    }

    pub(crate) fn stands(&self) -> Phase {
        self.phase
    }

    pub(crate) fn phase(&mut self, phase: Phase) {
        if self.phase != phase {
            self.phase = phase;
            self.since = Instant::now();
            self.watched = self.since;
        }
        self.next_attempt = None;
        if !matches!(phase, Phase::Starting | Phase::Ready | Phase::Draining) {
            self.pid = None;
            self.url = None;
            self.slots_total = 0;
            self.device_mask = None;
            self.load_ms = None;
            self.determinism = None;
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
            device_mask: self.device_mask.clone(),
            hints: self.load_ms.map(|ms| PerformanceHints { load_ms: Some(ms), tokens_per_s: None }),
            determinism: self.determinism.clone(),
            slots_total: self.slots_total,
            slots_free: None,
            generation: self.generation,
            failures: self.failures,
            losses: self.losses.clone(),
            next_attempt_ms: self.next_attempt.map(|at| ms(at.saturating_duration_since(now))),
            last_error: self.last_error.clone(),
        }
    }
}

impl Board {
    pub(crate) fn new() -> Self {
        Self { pools: Mutex::default(), changed: watch::Sender::new(0), configuration: Mutex::default() }
    }

    /// Adds a pool, with the replicas of its configuration.
    pub(crate) fn add(&self, config: &Arc<PoolConfig>) {
        let state = PoolState {
            config: Arc::clone(config),
            wanted: Wanted::Running,
            steps: Vec::new(),
            model: None,
            replicas: (0..config.replicas).map(ReplicaId::nth).map(ReplicaState::new).collect(),
        };
        self.lock().push(Arc::new(PoolEntry { id: config.id.clone(), state: Mutex::new(state) }));
        self.wake();
    }

    /// A pool is no more.
    pub(crate) fn remove(&self, id: &PoolId) {
        self.lock().retain(|pool| pool.id != *id);
        self.wake();
    }

    /// Shows pools in this order; those that it does not name come last.
    pub(crate) fn order(&self, ids: &[PoolId]) {
        let place = |pool: &Arc<PoolEntry>| ids.iter().position(|id| *id == pool.id).unwrap_or(usize::MAX);
        self.lock().sort_by_key(place);
        self.wake();
    }

    /// A pool has so many replicas from now on.
    pub(crate) fn resize(&self, id: &PoolId, replicas: u32) {
        let Some(pool) = self.pool(id) else { return };
        let mut state = pool.lock();
        let here = u32::try_from(state.replicas.len()).unwrap_or(u32::MAX);
        state.replicas.extend((here..replicas).map(ReplicaId::nth).map(ReplicaState::new));
        state.replicas.truncate(usize::try_from(replicas).unwrap_or(usize::MAX));
        drop(state);
        self.wake();
    }

    /// A replica's place on the board; `None` where there is none.
    pub(crate) fn seat(self: &Arc<Self>, pool: &PoolId, replica: &ReplicaId) -> Option<Seat> {
        let entry = self.pool(pool)?;
        Some(Seat { board: Arc::clone(self), pool: entry, replica: replica.clone() })
    }

    pub(crate) fn list(&self) -> PoolList {
        let configuration = self.configuration.lock().unwrap_or_else(PoisonError::into_inner).clone();
        PoolList { pools: self.lock().iter().map(|pool| pool.view()).collect(), configuration }
    }

    /// Shows how far the configuration file is followed.
    pub(crate) fn follows(&self, view: &ConfigView) {
        *self.configuration.lock().unwrap_or_else(PoisonError::into_inner) = Some(view.clone());
    }

    pub(crate) fn view(&self, id: &PoolId) -> Option<PoolView> {
        self.pool(id).map(|pool| pool.view())
    }

    pub(crate) fn wanted(&self, id: &PoolId, wanted: Wanted) {
        if let Some(pool) = self.pool(id) {
            pool.lock().wanted = wanted;
            self.wake();
        }
    }

    /// Shows another configuration of a pool.
    pub(crate) fn configured(&self, config: &Arc<PoolConfig>) {
        if let Some(pool) = self.pool(&config.id) {
            pool.lock().config = Arc::clone(config);
            self.wake();
        }
    }

    /// Shows no earlier losses of a pool's replicas; one that waits for its time says its own when it
    /// has heard of it.
    pub(crate) fn forgiven(&self, id: &PoolId) {
        if let Some(pool) = self.pool(id) {
            pool.lock().replicas.iter_mut().for_each(|replica| replica.failures = 0);
            self.wake();
        }
    }

    /// Looks at every replica of a pool; none where there is no such pool.
    pub(crate) fn replicas<T>(&self, id: &PoolId, look: impl Fn(&ReplicaState) -> T) -> Vec<T> {
        self.pool(id).map_or_else(Vec::new, |pool| pool.lock().replicas.iter().map(look).collect())
    }

    /// A replica that is supposed to be watched and was not for longer than `limit`.
    pub(crate) fn unwatched(&self, limit: Duration) -> Option<ReplicaKey> {
        let now = Instant::now();
        let neglected = |replica: &&ReplicaState| {
            let watched = matches!(replica.phase, Phase::Ready | Phase::Draining);
            watched && now.saturating_duration_since(replica.watched) > limit
        };
        self.lock().iter().find_map(|pool| {
            let replica = pool.lock().replicas.iter().find(neglected).map(|replica| replica.id.clone())?;
            Some(ReplicaKey { pool: pool.id.clone(), replica })
        })
    }

    /// Wakes on every change. The number only grows; it means nothing else.
    pub(crate) fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn wake(&self) {
        self.changed.send_modify(|changes| *changes += 1);
    }

    fn pool(&self, id: &PoolId) -> Option<Arc<PoolEntry>> {
        self.lock().iter().find(|pool| pool.id == *id).map(Arc::clone)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<PoolEntry>>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
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
            id: self.id.clone(),
            aliases: state.config.aliases.clone(),
            model_ref: state.config.model.clone(),
            model: state.model.clone(),
            wanted: state.wanted,
            steps: state.steps.clone(),
            replicas: state.replicas.iter().map(|r| r.view(now)).collect(),
        }
    }
}

/// One replica's place on the board. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Seat {
    board: Arc<Board>,
    pool: Arc<PoolEntry>,
    replica: ReplicaId,
}

impl Seat {
    /// Changes the replica's state.
    pub(crate) fn update(&self, change: impl FnOnce(&mut ReplicaState)) {
        self.pool.lock().replicas.iter_mut().find(|r| r.id == self.replica).map(change).unwrap_or_default();
        self.board.wake();
    }

    /// The pool as it is configured now.
    pub(crate) fn config(&self) -> Arc<PoolConfig> {
        Arc::clone(&self.pool.lock().config)
    }

    /// Its task has looked at it. Nobody is woken: nothing changed.
    pub(crate) fn watched(&self) {
        if let Some(replica) = self.pool.lock().replicas.iter_mut().find(|r| r.id == self.replica) {
            replica.watched = Instant::now();
        }
    }

    /// Adds a step, or replaces the one with the same id.
    pub(crate) fn step(&self, step: PreparationStep) {
        let steps = &mut self.pool.lock().steps;
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
        format!("{}/warmup{suffix}", self.pool.id)
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
        for step in self.pool.lock().steps.iter_mut().filter(|step| which(step)) {
            step.status = status;
            if let Some(description) = description {
                description.clone_into(&mut step.description);
            }
        }
    }

    pub(crate) fn set_model(&self, model: Option<ModelRecord>) {
        if let Some(model) = model {
            self.pool.lock().model = Some(model);
        }
    }

    pub(crate) fn model(&self) -> Option<ModelRecord> {
        self.pool.lock().model.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// POOLD-SERVICE-001
    #[tokio::test(start_paused = true)]
    async fn whoever_serves_or_drains_without_a_look_is_named_and_nobody_else() {
        const LIMIT: Duration = Duration::from_secs(20);
        let (pool, board) = (Arc::new(PoolConfig::haiku()), Arc::new(Board::new()));
        board.add(&pool);
        let seat = board.seat(&pool.id, &ReplicaId::nth(0)).unwrap();
        for phase in [Phase::Provisioning, Phase::Starting, Phase::Backoff, Phase::Failed, Phase::Stopped] {
            seat.update(|replica| replica.phase(phase));
            tokio::time::advance(LIMIT * 2).await;
            assert_eq!(board.unwatched(LIMIT), None, "{phase:?} has nothing to look at");
        }
        let key = ReplicaKey { pool: pool.id.clone(), replica: ReplicaId::nth(0) };
        for phase in [Phase::Ready, Phase::Draining] {
            seat.update(|replica| replica.phase(phase));
            tokio::time::advance(LIMIT).await;
            assert_eq!(board.unwatched(LIMIT), None, "{phase:?}: not yet");
            tokio::time::advance(Duration::from_millis(1)).await;
            assert_eq!(board.unwatched(LIMIT), Some(key.clone()), "{phase:?}");
            seat.watched();
            assert_eq!(board.unwatched(LIMIT), None, "{phase:?}: it was looked at");
        }
    }
}
