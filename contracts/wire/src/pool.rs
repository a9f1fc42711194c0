//! Pools and replicas as both daemons report them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ConfigView, Determinism, ModelRecord, PoolId, PreparationStep, ReplicaId};

/// One pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PoolView {
    /// The pool.
    pub id: PoolId,
    /// Names that clients may use for it.
    pub aliases: Vec<String>,
    /// The model as configured.
    pub model_ref: String,
    /// The staged model, once it is staged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelRecord>,
    /// What it is wanted to do.
    #[serde(default)]
    pub wanted: Wanted,
    /// Provisioning, in order; empty before it began.
    pub steps: Vec<PreparationStep>,
    /// Its replicas.
    pub replicas: Vec<ReplicaView>,
}

/// One replica.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReplicaView {
    /// The replica.
    pub id: ReplicaId,
    /// Where it stands.
    pub phase: Phase,
    /// Since when, in milliseconds.
    pub phase_ms: u64,
    /// Engine version, once prepared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine_version: Option<String>,
    /// Process id while it lives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Base URL while it lives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// `CUDA_VISIBLE_DEVICES` of the engine while it lives; absent without cards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_mask: Option<String>,
    /// How fast it was measured to be, once it serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hints: Option<PerformanceHints>,
    /// Whether it may claim that the same request gives the same bytes, once it serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub determinism: Option<Determinism>,
    /// Slots the engine offers.
    pub slots_total: u32,
    /// Slots free, where the reporter knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots_free: Option<u32>,
    /// Lives so far.
    pub generation: u64,
    /// Losses since the breaker was last reset.
    pub failures: u32,
    /// Losses since the manager started, by cause, whether or not another start followed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub losses: BTreeMap<String, u64>,
    /// When the next start is due, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_ms: Option<u64>,
    /// The last loss.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<ReplicaError>,
}

/// What was measured of a replica. Nothing is here that was not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PerformanceHints {
    /// From the start of its process until it was proven, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_ms: Option<u64>,
    /// Tokens that one generation got per second, lately, after its first; orchestratord only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_s: Option<f64>,
}

/// One line of an engine's log, as `GET /v2/pools/{id}/logs` streams it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogLine {
    /// Whose.
    pub replica_id: ReplicaId,
    /// Without its end.
    pub line: String,
}

/// Why a replica was lost or could not start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReplicaError {
    /// Class of the cause, as `exit`, `signal`, `startup_timeout`, `provisioning`.
    pub cause: String,
    /// One sentence.
    pub message: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// The engine's last lines.
    pub log_tail: Vec<String>,
}

/// What a pool is wanted to do. Its replicas' phases follow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// To serve.
    #[default]
    Running,
    /// To take nothing new, and to be stopped when what ran has ended.
    Drained,
    /// To be stopped.
    Stopped,
}

/// Where a replica stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Its engine and model are being prepared.
    Provisioning,
    /// Its process was started and loads.
    Starting,
    /// It serves.
    Ready,
    /// It finishes what it has.
    Draining,
    /// It was lost and starts again when its backoff is over.
    Backoff,
    /// Too many losses in a row: single trials with long pauses.
    BreakerOpen,
    /// It cannot run until its configuration changes.
    Failed,
    /// Stopped on request.
    Stopped,
}

/// `GET /v2/pools` of both daemons.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PoolList {
    /// In the order of the config.
    pub pools: Vec<PoolView>,
    /// The configuration file and how far it is followed; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<ConfigView>,
}

/// `GET /v2/pools/{id}/health`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PoolHealth {
    /// A process of it lives.
    pub live: bool,
    /// At least one replica passed orchestratord's own probe and takes work.
    pub ready: bool,
    /// All its replicas are draining.
    pub draining: bool,
    /// Over all ready replicas.
    pub slots_total: u32,
    /// Over all ready replicas.
    pub slots_free: u32,
    /// Of the first ready replica.
    pub engine_version: Option<String>,
    /// Age of the last good probe.
    pub last_heartbeat_ms: Option<u64>,
    /// The last loss, in one sentence.
    pub last_error: Option<String>,
}
