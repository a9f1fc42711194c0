//! The part of OpenAI's Responses API that the front door accepts: its stateless core. Documented fields
//! are typed; other extras are ignored, as their own servers do.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// `POST /v1/responses`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
pub struct ResponsesRequest {
    /// Pool id, alias or model name.
    pub model: String,
    /// A text, or the items of a conversation: messages, `function_call`, `function_call_output`;
    /// `reasoning` is read over.
    pub input: Value,
    /// The system's message before all others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instructions: Option<String>,
    /// Server-sent events instead of one body.
    #[serde(default)]
    pub stream: bool,
    /// Tokens to generate at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_output_tokens: Option<u32>,
    /// 0 is greedy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Nucleus sampling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// Sampling seed (our extension).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u32>,
    /// Functions the model may call; others' tools are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<Vec<Value>>,
    /// `auto`, `none`, `required`, or `{type: function, name}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_choice: Option<Value>,
    /// Several at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallel_tool_calls: Option<bool>,
    /// `{format: {type: text | json_object | json_schema, …}}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<Value>,
    /// `{effort}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<Value>,
    /// Given back as it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Value>,
    /// Only false is served: nothing is kept here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<bool>,
    /// Refused: nothing is kept here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_response_id: Option<Value>,
    /// Refused: nothing is kept here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conversation: Option<Value>,
    /// Refused: nothing is kept here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<Value>,
    /// Only false is served: `/v2/tasks` goes on without its client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub background: Option<bool>,
    /// Only `disabled` is served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truncation: Option<String>,
    /// Only 0 is served: `/v1/chat/completions` has log probabilities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_logprobs: Option<u32>,
}

/// The answer, whole or in the last event of a stream.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ResponsesAnswer {
    /// `resp_` and the task's id.
    pub id: String,
    /// `response`.
    pub object: String,
    /// Unix seconds.
    pub created_at: u64,
    /// `in_progress`, `completed`, `incomplete` or `failed`.
    pub status: String,
    /// Why it failed: `{code, message}`.
    pub error: Option<Value>,
    /// Why it is incomplete: `{reason: max_output_tokens}`.
    pub incomplete_details: Option<Value>,
    /// As asked for.
    pub model: String,
    /// Items: `reasoning`, `message`, `function_call`.
    pub output: Vec<Value>,
    /// Absent until the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<ResponsesUsage>,
    /// As asked for.
    pub instructions: Option<String>,
    /// As asked for.
    pub max_output_tokens: Option<u32>,
    /// As asked for.
    pub temperature: Option<f64>,
    /// As asked for.
    pub top_p: Option<f64>,
    /// As asked for.
    pub tools: Vec<Value>,
    /// As asked for; `auto` otherwise.
    pub tool_choice: Value,
    /// As asked for; true otherwise.
    pub parallel_tool_calls: bool,
    /// As asked for; text otherwise.
    pub text: Value,
    /// As asked for.
    pub reasoning: Option<Value>,
    /// As asked for.
    pub metadata: Option<Value>,
    /// Always null.
    pub previous_response_id: Option<String>,
    /// Always false.
    pub store: bool,
    /// Always `disabled`.
    pub truncation: String,
}

/// What an answer used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "OpenAI's names")]
pub struct ResponsesUsage {
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub total_tokens: u64,
}
