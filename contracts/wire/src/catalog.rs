//! The models that model-provisioner holds, as the catalog shows them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One fetched (or built-in) model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CatalogModel {
    /// SHA-256 (hex) of the file, or of a split set as `ModelRecord` has it: its name in the catalog.
    pub digest: String,
    /// The reference it was first fetched for.
    pub source: String,
    /// `general.name` of the file, else its file stem.
    pub name: String,
    /// Whether the hub or the configuration named the digest.
    pub verified_by_source: bool,
    /// Size of the file, or of all files of a split set.
    pub size_bytes: u64,
    /// Files it consists of; more than one for a split set.
    pub files: u32,
    /// `<arch>.context_length`; absent when the header does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ctx_max: Option<u32>,
    /// The quantisation's usual name.
    pub quantisation: String,
    /// `general.architecture`.
    pub architecture: String,
    /// Milliseconds since 1970; absent for a built-in model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetched_unix_ms: Option<u64>,
    /// When it was last staged; absent when that was before uses were noted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_unix_ms: Option<u64>,
    /// Never evicted.
    pub pinned: bool,
    /// A running process uses it.
    pub in_use: bool,
    /// What is wrong with it; absent when its header could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// `GET /v2/catalog/models`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CatalogList {
    /// The last used first.
    pub models: Vec<CatalogModel>,
}

/// `POST /v2/catalog/models/{id}/verify`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CatalogVerified {
    /// The model.
    pub digest: String,
    /// Its file is what was fetched.
    pub intact: bool,
    /// What is wrong with it; absent when nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// `DELETE /v2/catalog/models/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CatalogRemoved {
    /// The model that was removed.
    pub digest: String,
    /// Room that it took up.
    pub freed_bytes: u64,
}
