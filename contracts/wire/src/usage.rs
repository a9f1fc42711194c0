//! Who has used what.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::PoolId;

/// `GET /v2/usage`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UsageReport {
    /// When counting began, in seconds since the epoch.
    pub since: u64,
    /// By caller, then pool, then model.
    pub usage: Vec<UsageRow>,
}

/// What one caller has used of one model of one pool, by tasks that have ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UsageRow {
    /// The token's name; `local` for callers without a key, `others` for those beyond the bound.
    pub caller: String,
    /// The pool.
    pub pool_id: PoolId,
    /// The model that answered, as `started` names it; absent for tasks that no engine took, and for what
    /// was counted before models were told apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Tasks that have ended.
    pub tasks: u64,
    /// Of them, those that failed.
    pub failed: u64,
    /// Of them, those that were cancelled.
    pub cancelled: u64,
    /// Prompt tokens, as far as the engine has counted them.
    pub tokens_in: u64,
    /// Generated tokens.
    pub tokens_out: u64,
    /// Time on engines.
    pub decode_time_ms: u64,
}

impl UsageRow {
    /// A row with nothing in it.
    #[must_use]
    pub fn new(caller: &str, pool_id: PoolId, model: Option<String>) -> Self {
        let (tasks, failed, cancelled, tokens_in, tokens_out, decode_time_ms) = (0, 0, 0, 0, 0, 0);
        Self {
            caller: caller.to_owned(),
            pool_id,
            model,
            tasks,
            failed,
            cancelled,
            tokens_in,
            tokens_out,
            decode_time_ms,
        }
    }
}
