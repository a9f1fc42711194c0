//! Artifacts: bytes that are named by their digest. A task that asks for it leaves one, its transcript.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::FinishReason;
use crate::{PoolId, Receipt, TaskId, TaskRequest};

/// The version of [`Transcript`] that this code writes.
pub const TRANSCRIPT_VERSION: u32 = 1;

/// The answer to `POST /v2/artifacts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ArtifactStored {
    /// SHA-256 (hex) of the bytes: their name.
    pub sha256: String,
    /// How many there are.
    pub bytes: u64,
}

/// What a finished task was asked and what it answered.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Transcript {
    /// Of this shape.
    pub version: u32,
    /// The task.
    pub task_id: TaskId,
    /// Where it ran.
    pub pool_id: PoolId,
    /// What asks the same of the same pool again, with the seed that was used.
    pub request: TaskRequest,
    /// The whole answer.
    pub text: String,
    /// Its tokens; absent where the engine did not name all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Vec<u32>>,
    /// Prompt tokens, from the engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_in: Option<u64>,
    /// Generated tokens, from the engine.
    pub tokens_out: u64,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// What ran.
    pub receipt: Receipt,
}
