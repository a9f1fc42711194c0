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
    /// Size of the file, or of all files of a split set.
    pub size_bytes: u64,
    /// SHA-256 (hex) of the file; of a split set: of the text that has the digest of each of its files in
    /// order, one a line.
    pub digest: String,
    /// The files of a split set, in order; absent when there is only one file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<ModelPart>,
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
    /// Transformer blocks; absent when the header does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<u32>,
    /// Attention heads of a layer; absent when the header does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heads: Option<u32>,
    /// Tokens of the vocabulary; absent when the header does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vocabulary: Option<u32>,
}

/// One file of a split set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ModelPart {
    /// Absolute path.
    pub path: PathBuf,
    /// Its size.
    pub size_bytes: u64,
    /// Its SHA-256 (hex).
    pub digest: String,
}
