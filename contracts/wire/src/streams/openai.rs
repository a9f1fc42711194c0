//! The frames of OpenAI's two older streams: chat completions and completions.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ErrorEnvelope;
use crate::openai::{TextChoice, Usage};

/// The data of one frame of a streamed `/v1/chat/completions`. Frames have no event name; behind the last
/// of a whole answer comes one whose data is the word `[DONE]`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ChatCompletionFrame {
    /// A piece of the answer.
    Chunk(ChatCompletionChunk),
    /// The task failed; nothing follows.
    Error(ErrorEnvelope),
}

/// A piece of a chat's answer.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ChatCompletionChunk {
    /// `chatcmpl-<task id>`.
    pub id: String,
    /// What it is.
    pub object: ChunkObject,
    /// Seconds since the epoch; the same in all of one answer.
    pub created: u64,
    /// The name the client asked for.
    pub model: String,
    /// One choice; none in the frame with `usage`.
    pub choices: Vec<ChunkChoice>,
    /// Only in the last frame, where `stream_options.include_usage` asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// The engine's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_fingerprint: Option<String>,
    /// The engine's own (llama.cpp's extension).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timings: Option<Value>,
}

/// What a chunk of a chat calls itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ChunkObject {
    /// The only one.
    #[serde(rename = "chat.completion.chunk")]
    ChatCompletionChunk,
}

/// What a chunk adds to its choice.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ChunkChoice {
    /// Always 0.
    pub index: u32,
    /// What is new.
    pub delta: ChunkDelta,
    /// Of the tokens in this chunk, where they were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<Value>,
    /// `stop`, `length` or `tool_calls`; null until the last.
    pub finish_reason: Option<String>,
}

/// What is new in a message. What else the engine says arrives as it said it.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
pub struct ChunkDelta {
    /// `assistant`, once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// Reasoning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// Calls, or pieces of their arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<Vec<ToolCallDelta>>,
}

/// A call, or a piece of its arguments.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ToolCallDelta {
    /// Which call of the message.
    pub index: u32,
    /// Only in the first piece.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// `function`, only in the first piece.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// `{name?, arguments?}`: arguments are JSON in pieces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<Value>,
}

/// The data of one frame of a streamed `/v1/completions`. Frames have no event name; behind the last of a
/// whole answer comes one whose data is the word `[DONE]`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum TextCompletionFrame {
    /// A piece of the answer.
    Piece(TextCompletionPiece),
    /// The task failed; nothing follows.
    Error(ErrorEnvelope),
}

/// A piece of a completion.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct TextCompletionPiece {
    /// `cmpl-<task id>`.
    pub id: String,
    /// What it is.
    pub object: PieceObject,
    /// Seconds since the epoch; the same in all of one answer.
    pub created: u64,
    /// The name the client asked for.
    pub model: String,
    /// One choice; none in the frame with `usage`.
    pub choices: Vec<TextChoice>,
    /// Only in the last frame, where `stream_options.include_usage` asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// What a piece of a completion calls itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PieceObject {
    /// The only one.
    TextCompletion,
}
