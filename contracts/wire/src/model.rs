//! What is known about a model file: the value that model-provisioner hands to engine-provisioner.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A verified local model and its description, read from the GGUF header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ModelRecord {
    /// The reference it was resolved from, as written in the config.
    pub model_ref: String,
    /// `general.name` of the file, else its file stem.
    pub id: String,
    /// Absolute path of the file (the first of a split set).
    pub path: PathBuf,
    /// Size of the file.
    pub size_bytes: u64,
    /// SHA-256 (hex) of the file.
    pub digest: String,
    /// `<arch>.context_length`; absent when the header does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ctx_max: Option<u32>,
    /// The quantisation's usual name (`F16`, `Q4_K_M`, …), or `type-<n>` for an unknown number.
    pub quantisation: String,
    /// `general.architecture`.
    pub architecture: String,
    /// Sum of the tensors' elements.
    pub parameters: u64,
    /// Whether `tokenizer.chat_template` is present.
    pub chat_template: bool,
}
