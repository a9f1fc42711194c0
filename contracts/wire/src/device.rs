//! The graphics cards of a machine, as pool-managerd reports them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{PoolId, ReplicaId};

/// One card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Device {
    /// As `nvidia-smi` counts.
    pub index: u32,
    /// `GPU-…`.
    pub uuid: String,
    /// Name, for people.
    pub name: String,
    /// Memory in all.
    pub vram_total_bytes: u64,
    /// Memory that nobody uses.
    pub vram_free_bytes: u64,
    /// As `8.6`.
    pub compute_capability: String,
    /// Version of the driver, where it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// Part of the last second or so in which the card computed, where the driver says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub utilisation_percent: Option<u32>,
    /// Who has memory of it, as far as the driver says, and engines that are promised some.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<DeviceUser>,
}

/// A process that has memory of a card, or an engine that is promised some.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeviceUser {
    /// The process; absent for an engine that is not started yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// What it has, as the driver counts; absent where that does not say (in some containers).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_bytes: Option<u64>,
    /// The pool whose engine it is; absent for a process that is none of pool-managerd's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool_id: Option<PoolId>,
    /// And which of its replicas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica_id: Option<ReplicaId>,
    /// What was expected of that engine before it had loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimated_bytes: Option<u64>,
}

/// `GET /v2/devices` of both daemons.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeviceList {
    /// By index; empty on a machine without NVIDIA cards.
    pub devices: Vec<Device>,
    /// Why cards that may be there could not be listed, what `nvidia-smi` said, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}
