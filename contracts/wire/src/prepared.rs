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
    /// Absolute path of the staged GGUF; of a split set, the first ([`crate::split::files`] names all).
    pub model_path: PathBuf,
    /// `llamacpp-<source>-<first 12 of the engine digest>`, stable across identical builds.
    pub engine_version: String,
    /// The pool it was prepared for.
    pub pool_id: PoolId,
    /// The replica it was prepared for.
    pub replica_id: ReplicaId,
    /// UUIDs of the cards it uses, as `CUDA_VISIBLE_DEVICES` takes them; absent on a CPU build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_mask: Option<String>,
    /// What a replica of it will need, by its model's header; absent when the header does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryEstimate>,
    /// SHA-256 (hex) over everything that went into the build.
    pub engine_digest: String,
    /// The definitions that it was built with, as `-DNAME=VALUE`; empty for one that was not built here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub build_flags: Vec<String>,
    /// SHA-256 (hex) of the model file, or of a split set as `ModelRecord` has it.
    pub model_digest: String,
    /// Tokens of context per slot.
    pub ctx: u32,
    /// Concurrent generations.
    pub slots: u32,
    /// Additional environment for the engine, already checked.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

/// What an engine will need, in bytes, whichever device it is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MemoryEstimate {
    /// The model's tensors.
    pub weights_bytes: u64,
    /// Keys and values of one slot at the pool's context.
    pub kv_bytes_per_slot: u64,
    /// Keys and values of all slots.
    pub kv_bytes: u64,
    /// Scratch buffers of a computation; once per device.
    pub compute_bytes: u64,
}

impl MemoryEstimate {
    /// All of it on one device.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.weights_bytes.saturating_add(self.kv_bytes).saturating_add(self.compute_bytes)
    }
}
