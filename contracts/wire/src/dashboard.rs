//! What happens, for those who watch all of it: `GET /v2/events`.
//!
//! At first everything as it is, then `synced`, then what changes. There is nothing to resume from:
//! whoever comes back gets everything as it is again. No event carries a prompt or an answer.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::worker::WorkerView;
use crate::{OperationView, PoolId, PoolView, ReplicaId, TaskView};

/// One event: its SSE name and its data.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", content = "data", rename_all = "snake_case")]
pub enum DashboardEvent {
    /// A pool or one of its replicas is not what it was. Changes of times alone are not told.
    Pool(PoolView),
    /// A pool's queue, slots or counts are not what they were.
    Load(PoolLoad),
    /// A task was admitted, started, went back to its queue, or ended.
    Task(TaskView),
    /// An operation on a pool began, went on or ended.
    Operation(OperationView),
    /// An engine was registered, or answers otherwise than before.
    Worker(WorkerView),
    /// An engine was unregistered.
    WorkerGone(WorkerGone),
    /// Everything that there was has been told.
    Synced(Synced),
    /// The reader was too slow: so many tasks' changes were left out.
    Gap(Gap),
}

impl DashboardEvent {
    /// The SSE `event:` name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pool(_) => "pool",
            Self::Load(_) => "load",
            Self::Task(_) => "task",
            Self::Operation(_) => "operation",
            Self::Worker(_) => "worker",
            Self::WorkerGone(_) => "worker_gone",
            Self::Synced(_) => "synced",
            Self::Gap(_) => "gap",
        }
    }
}

/// What goes on in a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PoolLoad {
    /// The pool.
    pub pool_id: PoolId,
    /// A replica takes work.
    pub ready: bool,
    /// Interactive tasks that wait.
    pub waiting_interactive: u32,
    /// Batch tasks that wait.
    pub waiting_batch: u32,
    /// Tasks that hold a slot.
    pub running: u32,
    /// Slots of replicas that take work.
    pub slots_total: u32,
    /// Of them, those that nobody holds.
    pub slots_free: u32,
    /// Tasks that have ended, over restarts.
    pub tasks: u64,
    /// Of them, those that failed.
    pub failed: u64,
    /// Prompt tokens of tasks that have ended, as far as the engine has counted them.
    pub tokens_in: u64,
    /// Generated tokens of tasks that have ended.
    pub tokens_out: u64,
}

/// `worker_gone`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WorkerGone {
    /// The pool it served.
    pub pool_id: PoolId,
    /// Its name within the pool.
    pub replica_id: ReplicaId,
}

/// `synced`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Synced {
    /// Tasks that were told: the newest, with the oldest of them first.
    pub tasks: u32,
}

/// `gap`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Gap {
    /// Changes of tasks that were left out; `GET /v2/tasks` has them.
    pub missed: u64,
}
