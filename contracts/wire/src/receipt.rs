//! What ran, so that it can be run again and compared: the receipt of a task, and what is known of an
//! engine beyond its version.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ReplicaId, Seed};

/// What ran, so that it can be run again. What nobody said is left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Receipt {
    /// As in `PreparedEngine`.
    pub engine_version: String,
    /// What is known of the engine beyond its version.
    #[serde(flatten)]
    pub engine: EngineFacts,
    /// SHA-256 of the model; empty when the handoff did not say.
    pub model_digest: String,
    /// The seed that was used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<Seed>,
    /// How tokens were chosen: what was asked for and, of a task that its engine finished, what the engine
    /// took for the rest.
    #[serde(default)]
    pub sampling: EffectiveSampling,
    /// Whether the engine might reuse what it had computed of an earlier prompt.
    #[serde(default)]
    pub cache_prompt: bool,
    /// SHA-256 (hex) of the body that submitted the task.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub request_sha256: String,
    /// SHA-256 (hex) over the generated token ids, each as four little-endian bytes.
    pub tokens_sha256: String,
    /// What the replica that ended it may claim about sameness; absent when its handoff does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub determinism: Option<crate::Determinism>,
    /// The artifact that holds what was asked and answered, of a task that asked for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transcript_sha256: Option<String>,
    /// Where the task went on after the engine under it was lost, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seams: Vec<Seam>,
}

/// What is known of an engine beyond its version: by its handoff and its own answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EngineFacts {
    /// SHA-256 (hex) over everything that went into the build.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub engine_digest: String,
    /// The definitions that it was built with, as `-DNAME=VALUE`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub build_flags: Vec<String>,
    /// SHA-256 (hex) of the chat template that it renders messages with.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub chat_template_sha256: String,
    /// How it shares itself among generations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot_mode: Option<SlotMode>,
}

/// How an engine shares itself among generations: with more than one at a time, or with batches that
/// others join, the last bits of a computation depend on who else is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SlotMode {
    /// Generations at a time.
    pub slots: u32,
    /// Whether they are computed in common batches. Absent: the flags of the engine are not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub continuous_batching: Option<bool>,
}

/// How tokens were chosen, as llama-server names it. Absent: nobody said.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[expect(missing_docs, reason = "llama-server's own names; those of a request are documented there")]
pub struct EffectiveSampling {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dynatemp_range: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_n_sigma: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub typical_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub xtc_probability: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repeat_last_n: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repeat_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub presence_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frequency_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dry_multiplier: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirostat: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ignore_eos: Option<bool>,
    /// In the order in which they were applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub samplers: Option<Vec<String>>,
}

/// A place where one engine took over from another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Seam {
    /// Index of the first token after it.
    pub from_index: u64,
    /// What the next engine was given of what had been said.
    pub by: SeamBy,
    /// Where it went on.
    pub replica_id: ReplicaId,
    /// The seed from here on, of a task that draws its tokens: the same one would draw the same
    /// numbers again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<Seed>,
}

/// What an engine that goes on is given of what had been said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SeamBy {
    /// The very token ids.
    Ids,
    /// The text, because not all ids were known; its tokens may be other ones.
    Text,
}
