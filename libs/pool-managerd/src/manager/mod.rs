//! The pools of this manager and what can be asked of them. Gives orders and watches the board for
//! what becomes of them; how a replica follows is its own task's business.

mod conduct;
mod configure;
mod preload;
mod reload;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wire::config::PoolConfig;
use wire::{OperationId, OperationKind, PoolId, ReplicaId, ReplicaKey, Wanted};

use crate::board::Board;
use crate::launch::Life;
use crate::operations::{Busy, Operation, Operations};
use crate::orders::Commander;
use crate::replica::Replica;
use crate::shared::Shared;
use crate::target::Target;

/// All pools. Cheap to clone; all clones are one.
#[derive(Clone)]
pub(crate) struct Manager(Arc<Inner>);

impl std::fmt::Debug for Manager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Manager")
    }
}

struct Inner {
    shared: Arc<Shared>,
    board: Arc<Board>,
    operations: Operations,
    pools: Mutex<BTreeMap<PoolId, Pool>>,
    /// The pools of the newest configuration.
    wanted: watch::Sender<Vec<Arc<PoolConfig>>>,
    /// Whose turn it is to follow a configuration, by pool.
    turns: Mutex<BTreeMap<PoolId, Arc<tokio::sync::Mutex<()>>>>,
    /// The number of the next target, over all pools.
    next_target: AtomicU64,
    /// Replicas and conductors of operations.
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

#[derive(Debug, Clone)]
struct Pool {
    commanders: Vec<Commander>,
    target: Arc<Target>,
    /// As the configuration says; what was reloaded on request is not in it.
    configured: Arc<PoolConfig>,
}

/// Why an order was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotTaken {
    #[error("there is no pool {0}")]
    Unknown(PoolId),
    /// It asks for something that cannot be.
    #[error("{problem}")]
    Invalid { param: &'static str, problem: String },
    /// It would take an engine away that serves.
    #[error("pool {0} serves with another engine or model than the one that is named")]
    Serves(PoolId),
    /// The rules for models do not let it be used.
    #[error("{model} is refused: {problem}")]
    Untrusted { model: String, problem: String },
    #[error(transparent)]
    Busy(#[from] Busy),
}

impl Manager {
    pub(crate) fn new(shared: Arc<Shared>, shutdown: CancellationToken) -> Self {
        Self(Arc::new(Inner {
            shared,
            board: Arc::new(Board::new()),
            operations: Operations::default(),
            pools: Mutex::default(),
            wanted: watch::Sender::default(),
            turns: Mutex::default(),
            next_target: AtomicU64::new(1),
            tasks: TaskTracker::new(),
            shutdown,
        }))
    }

    /// Starts a pool's replicas. Those that have an engine among the `survivors` go on with it.
    pub(crate) fn add(&self, pool: &Arc<PoolConfig>, survivors: &mut HashMap<ReplicaKey, Life>) {
        let inner = &self.0;
        inner.board.add(pool);
        let target = Arc::new(Target::first(Arc::clone(pool)));
        let commanders = (0..pool.replicas).map(ReplicaId::nth).filter_map(|replica| {
            let survivor = survivors.remove(&ReplicaKey { pool: pool.id.clone(), replica: replica.clone() });
            self.start_replica(&target, &pool.id, replica, false, survivor)
        });
        let entry = Pool { commanders: commanders.collect(), target, configured: Arc::clone(pool) };
        inner.lock().insert(pool.id.clone(), entry);
    }

    /// Starts the task of a replica that has its place on the board.
    fn start_replica(
        &self,
        target: &Arc<Target>,
        pool: &PoolId,
        replica: ReplicaId,
        idle: bool,
        survivor: Option<Life>,
    ) -> Option<Commander> {
        let inner = &self.0;
        let seat = inner.board.seat(pool, &replica)?;
        let key = ReplicaKey { pool: pool.clone(), replica };
        let commander = Commander::new(Arc::clone(target), inner.shutdown.child_token());
        if idle {
            commander.stop();
        }
        let orders = commander.subscribe();
        let replica = Replica::new(Arc::clone(&inner.shared), Arc::clone(target), key, seat, orders);
        inner.tasks.spawn(replica.supervise(survivor));
        Some(commander)
    }

    pub(crate) fn clone_board(&self) -> Arc<Board> {
        Arc::clone(&self.0.board)
    }

    pub(crate) fn board(&self) -> &Board {
        &self.0.board
    }

    pub(crate) fn operations(&self) -> &Operations {
        &self.0.operations
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.0.shared
    }

    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.0.tasks
    }

    pub(crate) fn drain(&self, pool: &PoolId, deadline: Duration) -> Result<OperationId, NotTaken> {
        let (operation, commanders) = self.begin(OperationKind::Drain, pool)?;
        let until = Instant::now() + deadline;
        self.0.unless_called_off(&operation, |pools| {
            Inner::settle_targets(pools, pool);
            self.0.board.wanted(pool, Wanted::Drained);
            commanders.iter().for_each(|commander| commander.drain(until));
        });
        Ok(self.conduct(operation, |operation| conduct::drain(self.watcher(pool), operation)))
    }

    pub(crate) fn undrain(&self, pool: &PoolId) -> Result<OperationId, NotTaken> {
        let (operation, commanders) = self.begin(OperationKind::Undrain, pool)?;
        let mut requests = Vec::new();
        self.0.unless_called_off(&operation, |_| {
            self.0.board.wanted(pool, Wanted::Running);
            requests = commanders.iter().map(Commander::run).collect();
        });
        Ok(self.conduct(operation, |operation| conduct::start(self.watcher(pool), operation, requests)))
    }

    pub(crate) fn stop(&self, pool: &PoolId) -> Result<OperationId, NotTaken> {
        let (operation, commanders) = self.begin(OperationKind::Stop, pool)?;
        self.0.unless_called_off(&operation, |pools| {
            Inner::settle_targets(pools, pool);
            self.0.board.wanted(pool, Wanted::Stopped);
            commanders.iter().for_each(Commander::stop);
        });
        Ok(self.conduct(operation, |operation| conduct::stop(self.watcher(pool), operation)))
    }

    /// Closes the breakers; what waits for its time or for somebody to ask starts at once.
    pub(crate) fn reset(&self, pool: &PoolId) -> Result<OperationId, NotTaken> {
        let (operation, commanders) = self.begin(OperationKind::Reset, pool)?;
        commanders.iter().for_each(Commander::reset);
        self.0.board.forgiven(pool);
        let id = operation.id().clone();
        operation.succeeded(format!(
            "earlier losses of {} are forgotten; what was not running starts now",
            match commanders.len() {
                1 => "the replica".to_owned(),
                n => format!("{n} replicas"),
            }
        ));
        Ok(id)
    }

    fn begin(&self, kind: OperationKind, pool: &PoolId) -> Result<(Operation, Vec<Commander>), NotTaken> {
        let commanders = self.0.commanders(pool)?;
        let replicas = u32::try_from(commanders.len()).unwrap_or(u32::MAX);
        Ok((self.0.operations.begin(kind, pool, replicas)?, commanders))
    }

    fn conduct<F>(&self, operation: Operation, conductor: impl FnOnce(Operation) -> F) -> OperationId
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let id = operation.id().clone();
        let shutdown = self.0.shutdown.clone();
        let conductor = conductor(operation);
        self.0.tasks.spawn(async move {
            let _cut_short_at_shutdown = shutdown.run_until_cancelled(conductor).await;
        });
        id
    }

    fn watcher(&self, pool: &PoolId) -> conduct::Watcher {
        conduct::Watcher::new(Arc::clone(&self.0.board), pool.clone())
    }
}

impl Inner {
    fn commanders(&self, pool: &PoolId) -> Result<Vec<Commander>, NotTaken> {
        self.pool(pool).map(|pool| pool.commanders)
    }

    fn pool(&self, pool: &PoolId) -> Result<Pool, NotTaken> {
        self.lock().get(pool).cloned().ok_or_else(|| NotTaken::Unknown(pool.clone()))
    }

    fn turn(&self, pool: &PoolId) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(turns.entry(pool.clone()).or_default())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PoolId, Pool>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
