//! Sessions: turns that belong together.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{PoolId, ReplicaId, SessionId};

/// `GET /v2/sessions/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SessionView {
    /// The session.
    pub session_id: SessionId,
    /// Tasks that were admitted to it.
    pub turns: u64,
    /// When it is forgotten unless another task comes.
    pub ttl_ms_remaining: u64,
    /// Prompt tokens of its tasks that have ended.
    pub tokens_in: u64,
    /// Generated tokens of its tasks that have ended.
    pub tokens_out: u64,
    /// What it may still use.
    pub budgets: SessionBudgets,
    /// The pool of its last turn that has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool_id: Option<PoolId>,
    /// The replica that holds its prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica_id: Option<ReplicaId>,
}

/// What a session may still use; null is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SessionBudgets {
    /// Tasks.
    pub turns_remaining: Option<u64>,
    /// Tokens of prompts and answers.
    pub tokens_remaining: Option<u64>,
}
