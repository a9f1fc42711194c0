//! The events of a task as `/v2` streams them. The order is `started`, `token`*, then exactly one
//! of `end` and `error`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ErrorCode, PoolId, RawJson, ReplicaId};

pub use crate::receipt::{Receipt, Seam, SeamBy};

/// One event: its SSE name and its data.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", content = "data", rename_all = "snake_case")]
pub enum TaskEvent {
    /// Verbose only: the place in the queue changed.
    Queued(Queued),
    /// Verbose only: a preparation step moved.
    Prep(crate::PreparationStep),
    /// The task has a slot.
    Started(Started),
    /// A piece of text.
    Token(Token),
    /// Verbose only: rates.
    Metrics(TaskMetrics),
    /// Goes on elsewhere after its engine was lost, or after a restart of orchestratord.
    Resumed(Resumed),
    /// Ended by itself or by its owner.
    End(End),
    /// Failed.
    Error(StreamError),
}

impl TaskEvent {
    /// The SSE `event:` name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Queued(_) => "queued",
            Self::Prep(_) => "prep",
            Self::Started(_) => "started",
            Self::Token(_) => "token",
            Self::Metrics(_) => "metrics",
            Self::Resumed(_) => "resumed",
            Self::End(_) => "end",
            Self::Error(_) => "error",
        }
    }
}

/// One piece of a generation, as the engine sent it: what the task log keeps, and what both APIs
/// render from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineChunk {
    /// Text to show; may be empty (role announcements, tool deltas, half a character).
    pub text: String,
    /// Token ids behind it; empty where the engine's protocol does not carry them.
    pub tokens: Vec<u32>,
    /// Tokens behind it whose ids the engine did not say: of a character that several tokens make
    /// up, llama-server names only the last.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unnamed: u32,
    /// It says why the generation ended.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub finishes: bool,
    /// What else the engine said, in its own JSON, so that tool deltas, logprobs and reasoning survive: of a
    /// chat's chunk the members that are shown, of an answer without tokens all of it. Absent where text and
    /// ids are all that it says.
    pub raw: Option<RawJson>,
}

impl EngineChunk {
    /// The engine's JSON; `null` where there is none.
    #[must_use]
    pub fn raw(&self) -> &str {
        self.raw.as_ref().map_or("null", RawJson::get)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// `queued`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Queued {
    /// Tasks that go first.
    pub position: u32,
    /// Estimate until it starts; null while nothing has been measured.
    pub predicted_start_ms: Option<u64>,
}

/// `started`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Started {
    /// Time in the queue.
    pub queue_ms: u64,
    /// Where it runs.
    pub pool_id: PoolId,
    /// Where it runs.
    pub replica_id: ReplicaId,
    /// The engine that runs it.
    pub engine_version: String,
    /// The model that it runs.
    pub model: String,
    /// SHA-256 (hex) of the model, where it is known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub model_digest: String,
}

/// `token`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Token {
    /// Text; never empty.
    pub t: String,
    /// 0-based, without gaps.
    pub i: u64,
}

/// `metrics`, additive.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TaskMetrics {
    /// Tasks waiting in the pool.
    pub queue_depth: u32,
    /// Of this task, so far.
    pub tokens_per_s: f64,
}

/// `resumed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Resumed {
    /// Index of the next token. A reader that has tokens from there on drops them: they were lost with the
    /// process that said them.
    pub from_index: u64,
    /// Why, in words.
    pub reason: String,
    /// Where it goes on.
    pub replica_id: ReplicaId,
}

/// `end`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct End {
    /// Prompt tokens, from the engine. Absent where it has not said: of a task that was cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_in: Option<u64>,
    /// Generated tokens, from the engine (with the end token and pieces of characters).
    pub tokens_out: u64,
    /// Time on engines, all of them together. Of a task that orchestratord was restarted under, what it had
    /// taken since the last second that stands in its log is missing.
    pub decode_time_ms: u64,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// What ran. Apart, because every event takes as much room as the largest.
    pub receipt: Box<Receipt>,
    /// Of an embedding task its vectors, of a rerank task its scores, as the engine answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Box<serde_json::Value>>,
}

/// Why a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model or a stop string ended it.
    Stop,
    /// `max_tokens` or the context.
    Length,
    /// Its owner, or nobody was reading.
    Cancelled,
}

/// `error`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StreamError {
    /// Stable code.
    pub code: ErrorCode,
    /// One sentence.
    pub message: String,
    /// Whether the same request may succeed later.
    pub retriable: bool,
    /// When to try again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Token events that were sent before.
    pub tokens_sent: u64,
}
