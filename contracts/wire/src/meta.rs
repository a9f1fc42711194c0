//! Small answers about the daemon itself.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `GET /health`, `/livez`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Health {
    /// Always `ok`: the answer is the statement.
    pub status: String,
    /// `orchestratord` or `pool-managerd`, so that a caller knows whom it reached.
    pub service: String,
}

/// `GET /ready`, `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Readiness {
    /// At least one pool is ready.
    pub ready: bool,
    /// Pools that are.
    pub pools_ready: Vec<crate::PoolId>,
    /// Pools that are not.
    pub pools_waiting: Vec<crate::PoolId>,
}

/// `GET /v2/meta/version`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Version {
    /// The daemon.
    pub service: String,
    /// Its version.
    pub version: String,
}
