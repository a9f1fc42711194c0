//! Small answers about the daemon itself.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// `GET /health`, `/livez`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Health {
    /// Always `ok`: the answer is the statement.
    pub status: String,
    /// `orchestratord` or `pool-managerd`, so that a caller knows whom it reached.
    pub service: String,
}

/// `GET /v2/openapi.json`: an OpenAPI 3.1 document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OpenApiDocument {
    /// The version of OpenAPI.
    pub openapi: String,
    /// What is described.
    pub info: Map<String, Value>,
    /// What is served.
    pub paths: Map<String, Value>,
    /// Everything else that OpenAPI knows.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// `GET /ready`, `/readyz`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Readiness {
    /// At least one pool is ready.
    pub ready: bool,
    /// Pools that are.
    pub pools_ready: Vec<crate::PoolId>,
    /// Pools that are not.
    pub pools_waiting: Vec<crate::PoolId>,
    /// Beside a 503: the same as an error, as every answer with such a status has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<crate::ErrorBody>,
}

impl Readiness {
    /// With an error when no pool is ready.
    #[must_use]
    pub fn of(pools_ready: Vec<crate::PoolId>, pools_waiting: Vec<crate::PoolId>) -> Self {
        let waiting = pools_waiting.iter().map(crate::PoolId::as_str).collect::<Vec<_>>().join(", ");
        let none = match waiting.as_str() {
            "" => "there is no pool".to_owned(),
            waiting => format!("no pool is ready; not yet: {waiting}"),
        };
        let error = crate::ErrorBody::new(crate::ErrorCode::PoolUnready, none);
        let error = error.hint("GET /v2/pools says what each of them waits for");
        let error = pools_ready.is_empty().then_some(error);
        Self { ready: error.is_none(), pools_ready, pools_waiting, error }
    }
}

/// The configuration file that a daemon follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConfigView {
    /// The file.
    pub file: String,
    /// Why what it says now is not followed; absent while it is. What was read before stays in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// The sections that have changed and are read at the next start only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits: Vec<String>,
}

/// `GET /v2/meta/version`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Version {
    /// The daemon.
    pub service: String,
    /// Its version.
    pub version: String,
    /// The commit that was checked out when it was built; null when that was not in a git checkout.
    pub commit: Option<String>,
    /// Whether its sources differed from that commit's then; null where there is none.
    pub modified: Option<bool>,
}

/// `GET /v2/meta/capabilities`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Capabilities {
    /// Paths of the OpenAI- and Anthropic-compatible routes.
    pub routes: Vec<String>,
    /// What a request may be.
    pub limits: RequestLimits,
    /// Every pool.
    pub pools: Vec<PoolCapabilities>,
}

/// What a request may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RequestLimits {
    /// Bytes of a body, where its route has no limit of its own.
    pub body_bytes: u64,
    /// Bytes of a body on routes with a limit of their own.
    pub body_bytes_of_routes: std::collections::BTreeMap<String, u64>,
    /// A body must have arrived by then.
    pub body_timeout_ms: u64,
}

/// What a pool can do now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PoolCapabilities {
    /// The pool.
    pub id: crate::PoolId,
    /// Further names it can be asked for by.
    pub aliases: Vec<String>,
    /// What it is for; null for a pool that only its engine's handoff speaks of.
    pub kind: Option<crate::config::PoolKind>,
    /// Whether a replica takes work.
    pub ready: bool,
    /// Models of the replicas that do.
    pub models: Vec<String>,
    /// Their engines' versions.
    pub engines: Vec<String>,
    /// Tokens of context per slot, at most; null while nothing is ready.
    pub ctx: Option<u32>,
    /// Their slots.
    pub slots_total: u32,
}
