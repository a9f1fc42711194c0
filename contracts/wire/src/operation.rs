//! What is asked of a pool and takes its time: drain, undrain, reload, reset, stop. The answer to the
//! request is an id; what became of it is an [`OperationView`]. And preload, whose answer is the pool.
//!
//! Not to be confused with `operations`, the list of HTTP operations.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::pool::ReplicaError;
use crate::{OperationId, PoolId};

/// `POST /v2/pools/{id}/drain`. Without a body every field has its default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DrainRequest {
    /// How long running generations may go on; then they end with `POOL_DRAINING`. At most a day.
    pub deadline_ms: Option<u64>,
}

impl DrainRequest {
    /// When none is named.
    pub const DEFAULT_DEADLINE_MS: u64 = 60_000;
}

/// `POST /v2/pools/{id}/preload`. Without a body the pool runs what it ran last, or what is configured.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PreloadRequest {
    /// The engine to run: the digest of one that is in the store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine_digest: Option<String>,
    /// The model to load: the digest of one that is in the catalog, or its first eight digits or more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_digest: Option<String>,
}

/// `POST /v2/pools/{id}/reload`. Without a body the pool's engine is replaced by one of the same kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReloadRequest {
    /// The model to serve from now on: `builtin:…` or `hf:…`, never a path.
    pub model: Option<String>,
    /// The engine to serve it with: the digest of one that is in the store.
    pub engine_ref: Option<String>,
    /// How long generations on the old engine may go on, as for a drain. At most a day.
    pub deadline_ms: Option<u64>,
}

impl ReloadRequest {
    /// When none is named.
    pub const DEFAULT_DEADLINE_MS: u64 = 300_000;
}

/// Deadlines beyond this are refused.
pub const LONGEST_DEADLINE_MS: u64 = 24 * 3_600 * 1_000;

/// The operation has begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OperationAccepted {
    /// What to ask for at `GET /v2/operations/{id}`.
    pub operation_id: OperationId,
}

/// `GET /v2/operations/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OperationView {
    /// The operation.
    pub id: OperationId,
    /// What was asked.
    pub kind: OperationKind,
    /// Of which pool.
    pub pool_id: PoolId,
    /// Where it stands.
    pub state: OperationState,
    /// How far it is.
    pub progress: OperationProgress,
    /// What came of it; absent while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<OperationOutcome>,
    /// When it was asked, RFC 3339 in UTC.
    pub started_at: String,
    /// When it ended, RFC 3339 in UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
}

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OperationKind {
    /// Take nothing new, finish what runs, then stop.
    Drain,
    /// Run again after a drain or a stop.
    Undrain,
    /// Replace the engine.
    Reload,
    /// Close the breaker and start again at once.
    Reset,
    /// Stop now.
    Stop,
    /// Follow a configuration that has changed. Asked by nobody but the configuration file.
    Configure,
}

impl OperationKind {
    /// The wire spelling.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::Undrain => "undrain",
            Self::Reload => "reload",
            Self::Reset => "reset",
            Self::Stop => "stop",
            Self::Configure => "configure",
        }
    }
}

/// Where an operation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OperationState {
    /// It goes on.
    Running,
    /// The pool is as was asked.
    Succeeded,
    /// The pool is not as was asked; `outcome` says how it is.
    Failed,
    /// The new engine did not serve, and the pool runs as before.
    RolledBack,
}

/// How far an operation is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OperationProgress {
    /// Replicas that are as was asked.
    pub replicas_done: u32,
    /// Replicas of the pool.
    pub replicas_total: u32,
    /// What goes on, in one sentence.
    pub doing: String,
}

/// What came of an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OperationOutcome {
    /// One sentence.
    pub message: String,
    /// Why it did not succeed, with the engine's last lines where there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ReplicaError>,
}

/// `GET /v2/operations`: the newest first, as many as are remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OperationList {
    /// Operations of every pool.
    pub operations: Vec<OperationView>,
}
