//! `PreparedEngine`: what engine-provisioner returns and pool-managerd launches. A value, never
//! a running process.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{PoolId, ReplicaId};

/// A built and staged engine, ready to be started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PreparedEngine {
    /// Absolute path of `llama-server`.
    pub binary_path: PathBuf,
    /// Complete argument list but for host, port and API key.
    pub flags: Vec<String>,
    /// 0 means: pool-managerd chooses a free port at spawn.
    pub port: u16,
    /// Loopback address to bind.
    pub host: String,
    /// Absolute path of the staged GGUF.
    pub model_path: PathBuf,
    /// `llamacpp-<source>-<first 12 of the engine digest>`, stable across identical builds.
    pub engine_version: String,
    /// The pool it was prepared for.
    pub pool_id: PoolId,
    /// The replica it was prepared for.
    pub replica_id: ReplicaId,
    /// Value for `CUDA_VISIBLE_DEVICES`; absent on a CPU build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_mask: Option<String>,
    /// SHA-256 (hex) over everything that went into the build.
    pub engine_digest: String,
    /// SHA-256 (hex) of the model file.
    pub model_digest: String,
    /// Tokens of context per slot.
    pub ctx: u32,
    /// Concurrent generations.
    pub slots: u32,
    /// Additional environment for the engine, already checked.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}
