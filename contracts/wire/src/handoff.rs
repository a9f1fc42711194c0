//! The handoff file: a replica's claim to be ready, written by pool-managerd and read by
//! orchestratord. Only `url` is mandatory, so that a hand-written file binds an engine too.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Determinism, PoolId, ReplicaId};

/// The schema version this code writes. Readers accept any version up to this one.
pub const HANDOFF_SCHEMA_VERSION: u32 = 1;

/// One replica's claim. Unknown fields are ignored by readers, for forward compatibility.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Handoff {
    /// Version of this shape; absent means 1.
    #[serde(default = "schema_version")]
    pub schema_version: u32,
    /// `llamacpp`.
    #[serde(default = "engine")]
    pub engine: String,
    /// As in `PreparedEngine`.
    #[serde(default)]
    pub engine_version: String,
    /// As in `PreparedEngine`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub engine_digest: String,
    /// As in `PreparedEngine`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub build_flags: Vec<String>,
    /// How the engine came to be: `source`, `path`, `external`.
    #[serde(default)]
    pub provisioning_mode: String,
    /// `http://<literal loopback address>:<port>`, nothing else.
    pub url: String,
    /// The pool the replica belongs to.
    #[serde(default = "PoolId::default_pool")]
    pub pool_id: PoolId,
    /// The replica.
    #[serde(default = "first_replica")]
    pub replica_id: ReplicaId,
    /// What it serves.
    #[serde(default)]
    pub model: HandoffModel,
    /// The flags the engine was started with.
    #[serde(default)]
    pub flags: Vec<String>,
    /// Grows by one with every life of the replica, so that readers tell lives apart.
    #[serde(default)]
    pub generation: u64,
    /// Whether new work is welcome.
    #[serde(default)]
    pub state: HandoffState,
    /// The engine's process id, when it is ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The engine's own API key. The file is 0600 because of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key: Option<String>,
    /// Concurrent generations the engine offers.
    #[serde(default = "one")]
    pub slots_total: u32,
    /// Tokens of context per slot; absent when unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ctx: Option<u32>,
    /// `CUDA_VISIBLE_DEVICES` of the engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_mask: Option<String>,
    /// When the engine became ready, RFC 3339 in UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// From the start of its process until it was proven, in milliseconds; absent when nobody measured it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_ms: Option<u64>,
    /// Whether it may claim that the same request gives the same bytes; absent when nobody has looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub determinism: Option<Determinism>,
}

/// The model part of a handoff.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HandoffModel {
    /// The model's name.
    #[serde(default)]
    pub id: String,
    /// The file the engine maps.
    #[serde(default)]
    pub path: String,
    /// SHA-256 (hex) of that file.
    #[serde(default)]
    pub digest: String,
}

/// Whether a replica takes new work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HandoffState {
    /// Takes work.
    #[default]
    Ready,
    /// Finishes what it has and takes nothing new.
    Draining,
}

fn schema_version() -> u32 {
    1
}
fn engine() -> String {
    "llamacpp".to_owned()
}
fn one() -> u32 {
    1
}
fn first_replica() -> ReplicaId {
    ReplicaId::nth(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// HANDOFF-004
    #[test]
    fn a_file_with_only_a_url_is_a_whole_handoff() {
        let handoff: Handoff = serde_json::from_str(r#"{"url":"http://127.0.0.1:1"}"#).unwrap();
        assert_eq!(handoff.pool_id.as_str(), "default");
        assert_eq!(handoff.replica_id.as_str(), "r0");
        assert_eq!(handoff.slots_total, 1);
        assert_eq!(handoff.state, HandoffState::Ready);
    }

    #[test]
    fn a_file_without_a_url_is_refused() {
        let error = serde_json::from_str::<Handoff>(r#"{"pool_id":"a"}"#).unwrap_err();
        assert!(error.to_string().contains("url"));
    }
}
