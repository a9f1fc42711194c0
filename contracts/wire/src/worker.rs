//! Engines that someone else runs and that were made known by hand or by themselves.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{PoolId, ReplicaId};

/// The body of `POST /v2/workers/register`. The same replica registered again takes the place of what
/// was registered before, and is a heartbeat when nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RegisterWorker {
    /// `http://ADDRESS:PORT` of a `llama-server`: a literal loopback address, or one of
    /// `workers.networks`.
    pub url: String,
    /// The pool it serves; one that is not configured comes to be.
    pub pool_id: PoolId,
    /// Its name within the pool.
    pub replica_id: ReplicaId,
    /// The name of the model that it serves.
    #[schemars(length(min = 1, max = 256))]
    pub model: String,
    /// Concurrent generations, where the engine itself does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 256))]
    pub slots: Option<u32>,
    /// What the engine wants to hear as its bearer token; 1 to 512 visible ASCII characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub api_key: Option<String>,
    /// It is unregistered when so long no heartbeat has come. Without it, it stays until it is
    /// unregistered, whether it answers or not, also over a restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1_000, max = 86_400_000))]
    pub ttl_ms: Option<u64>,
}

/// A registered engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WorkerView {
    /// The pool it serves.
    pub pool_id: PoolId,
    /// Its name within the pool.
    pub replica_id: ReplicaId,
    /// Where it is.
    pub url: String,
    /// The name of the model that it serves.
    pub model: String,
    /// It answers orchestratord's own probes and takes work.
    pub ready: bool,
    /// When it is unregistered unless a heartbeat comes; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_ms: Option<u64>,
    /// Why the last probe failed; absent when it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// `GET /v2/workers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WorkerList {
    /// By pool and name.
    pub workers: Vec<WorkerView>,
}
