//! The part of Anthropic's Messages API that the front door accepts. Documented fields are typed;
//! other extras are ignored.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// `POST /v1/messages`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct MessagesRequest {
    /// Pool id, alias or model name.
    pub model: String,
    /// Turns of `user` and `assistant`.
    pub messages: Vec<Turn>,
    /// Tokens to generate at most.
    pub max_tokens: u32,
    /// Text, or a list of text blocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<Value>,
    /// Server-sent events instead of one body.
    #[serde(default)]
    pub stream: bool,
    /// Strings that end the generation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_sequences: Option<Vec<String>>,
    /// 0 is greedy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Nucleus sampling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// Keep the k likeliest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_k: Option<u32>,
    /// Tools of the client's own: `{name, description?, input_schema}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<Vec<Tool>>,
    /// `{type: auto | any | tool | none, name?, disable_parallel_tool_use?}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_choice: Option<ToolChoice>,
    /// `{type: enabled}` shows a model's reasoning as `thinking` blocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thinking: Option<Thinking>,
}

/// `POST /v1/messages/count_tokens`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct CountTokensRequest {
    /// Pool id, alias or model name.
    pub model: String,
    /// Turns of `user` and `assistant`, of text.
    pub messages: Vec<Turn>,
    /// Text, or a list of text blocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<Value>,
    /// Tools of the client's own: `{name, description?, input_schema}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<Vec<Tool>>,
    /// `{type: auto | any | tool | none, name?, disable_parallel_tool_use?}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_choice: Option<ToolChoice>,
}

/// The answer to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TokenCount {
    /// Of the prompt, as the engine would read it: with its chat template and the tools.
    pub input_tokens: u64,
}

/// One turn.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Turn {
    /// `user` or `assistant`.
    pub role: String,
    /// Text, or a list of blocks: `text`, `image` (base64), `tool_use`, `tool_result`, `thinking`.
    pub content: Value,
}

/// A tool.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Tool {
    /// Absent or `custom`; tools that a server would run are refused.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Its name.
    pub name: String,
    /// What it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// JSON Schema of its input.
    #[serde(default)]
    pub input_schema: Value,
}

/// Whether and which tool is used.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ToolChoice {
    /// `auto`, `any`, `tool` or `none`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Of `tool`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// At most one call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disable_parallel_tool_use: Option<bool>,
}

/// Whether reasoning is shown.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Thinking {
    /// `enabled`, `adaptive` or `disabled`.
    #[serde(rename = "type")]
    pub kind: String,
}

/// The answer to a request that does not stream, and the value of `message_start`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct MessagesAnswer {
    /// `msg_<task id>`.
    pub id: String,
    /// `message`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `assistant`.
    pub role: String,
    /// The name the client asked for.
    pub model: String,
    /// Blocks: `text`, `thinking`, `tool_use`.
    pub content: Vec<Value>,
    /// `end_turn`, `max_tokens` or `tool_use`. A stop sequence shows as `end_turn`: the engine's chat
    /// protocol does not tell the two apart.
    pub stop_reason: Option<String>,
    /// Always null, for the same reason.
    pub stop_sequence: Option<String>,
    /// Token counts, from the engine.
    pub usage: MessagesUsage,
}

/// Token counts, from the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MessagesUsage {
    /// Of the prompt; 0 in `message_start`, when the engine has not said yet.
    pub input_tokens: u64,
    /// Generated.
    pub output_tokens: u64,
}

/// An error of this API, as a body or as the data of an `error` event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MessagesError {
    /// `error`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What went wrong.
    pub error: MessagesErrorBody,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MessagesErrorBody {
    /// One of Anthropic's, as `invalid_request_error`.
    #[serde(rename = "type")]
    pub kind: String,
    /// For people, with what to do next.
    pub message: String,
    /// Our own, as in the error envelope.
    pub code: crate::ErrorCode,
}
