//! What the edge hands to dispatch: pools from the config, tasks from clients.

use std::sync::Arc;
use std::time::Duration;

use adapter_host::EngineRequest;
use serde::{Deserialize, Serialize};
use wire::config::QueueConfig;
use wire::task::{OnInterrupt, Placement, Priority};
use wire::{PoolId, SessionId, TaskId, TaskState, TaskView, TraceContext};

use crate::{CallerId, Measured};

/// A pool as configured.
#[derive(Debug, Clone)]
pub struct PoolSpec {
    /// Its id; always a name it can be asked for by.
    pub id: PoolId,
    /// Further names clients may use.
    pub aliases: Vec<String>,
    /// Names of its model, as far as they are known before it is staged.
    pub model_names: Vec<String>,
    /// The model that it is configured with; empty where that is not known. What was measured of one says
    /// nothing of another.
    pub model_ref: String,
    /// Tokens of context per slot.
    pub ctx: u32,
    /// The admission queue.
    pub queue: QueueConfig,
    /// The same request gives the same bytes; the edge asks before it allows a prompt cache.
    pub deterministic: bool,
}

/// What was measured of a pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PoolMeasured {
    /// The pool.
    pub pool_id: PoolId,
    /// With which model.
    pub model_ref: String,
    /// What.
    pub measured: Measured,
}

/// A task to be admitted. The edge has checked every field of the request.
#[derive(Debug, Clone)]
pub struct TaskSpec {
    /// Chosen by the client; the same owner, id and fingerprint submit once.
    pub task_id: Option<TaskId>,
    /// Hash of the request body, to tell a repeated submission from another one.
    pub fingerprint: [u8; 32],
    /// Who may see and cancel it.
    pub owner: Owner,
    /// Whose turn it takes.
    pub caller: CallerId,
    /// Pool id, alias or model name.
    pub model: String,
    /// What the engine is asked.
    pub request: EngineRequest,
    /// Tokens of its prompt, where the engine has counted them.
    pub tokens_in: Option<u64>,
    /// Class in the queue.
    pub priority: Priority,
    /// Whole life, from admission.
    pub deadline: Option<Duration>,
    /// Where it may run.
    pub placement: Option<Placement>,
    /// What a missing reader means.
    pub detach: Detach,
    /// What the loss of its engine means once it has begun to speak.
    pub on_interrupt: OnInterrupt,
    /// Whether what was asked and answered is kept when it has finished.
    pub transcript: bool,
    /// The session it belongs to.
    pub session: Option<SessionId>,
    /// The request that submits it, in the trace that it is part of.
    pub trace: Option<TraceContext>,
}

/// What a missing reader means for a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detach {
    /// The connection is the task: cancelled when the last reader leaves, queued or running.
    AtOnce,
    /// Cancelled when nobody has read for so long, from `started` or since the last reader left.
    After(Duration),
    /// Runs to its end.
    Never,
}

/// On whose behalf something is asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Owner {
    /// The control scope: sees every task.
    Control,
    /// One data token (or "everybody" where no tokens are configured), by a name of the edge's
    /// choosing that is not the token.
    Data(Arc<str>),
}

impl Owner {
    /// Whether this owner may know of a task of `other`.
    #[must_use]
    pub fn sees(&self, other: &Self) -> bool {
        *self == Self::Control || self == other
    }
}

/// Which tasks to list.
#[derive(Debug, Clone)]
pub struct TaskFilter {
    /// On whose behalf.
    pub owner: Owner,
    /// Only in this state.
    pub state: Option<TaskState>,
    /// At most so many, newest first.
    pub limit: usize,
    /// Only tasks admitted before the one of this number.
    pub before: Option<u64>,
}

/// Some of the tasks, newest first.
#[derive(Debug)]
pub struct TaskPage {
    /// The tasks.
    pub tasks: Vec<TaskView>,
    /// What to look before for those that follow; `None` when there are none.
    pub next: Option<u64>,
}
