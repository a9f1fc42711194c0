//! What a replica may say about sameness: the result of its own test, or what stands against it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether the same request gives the same bytes on this engine, as far as that was tested on its device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Determinism {
    /// What came of the test. Only `passed` is a claim.
    pub result: SelfTest,
    /// What the engine computes on, as far as it bears on the result.
    pub device: String,
    /// When the test was made, RFC 3339 in UTC; absent when there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tested_at: Option<String>,
    /// SHA-256 (hex) over the token ids of the test, each as four little-endian bytes: two replicas of one
    /// engine and model that passed and differ here must not be taken for the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_sha256: Option<String>,
    /// What differs between two answers, or may, in words; empty when it passed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differs: Vec<String>,
}

/// What came of a replica's test of its own determinism.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SelfTest {
    /// Two answers to each prompt were the same, token for token and probability for probability.
    Passed,
    /// They were not.
    Failed,
    /// The pool is declared deterministic and could not be tested.
    NotTested,
    /// The pool is not declared deterministic, so nothing was tested and nothing is claimed.
    NotDeclared,
}
