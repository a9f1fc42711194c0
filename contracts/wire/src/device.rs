//! The graphics cards of a machine, as pool-managerd reports them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
}

/// `GET /v2/devices` of both daemons.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeviceList {
    /// By index; empty on a machine without NVIDIA cards.
    pub devices: Vec<Device>,
    /// Why the cards of a machine with a driver could not be listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}
