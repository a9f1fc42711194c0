//! The part of OpenAI's API that the front door accepts. Documented fields are typed and
//! forwarded; other extras are ignored, as their own servers do.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::task::Message;

/// `POST /v1/chat/completions`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
pub struct ChatCompletionRequest {
    /// Pool id, alias or model name.
    pub model: String,
    /// The conversation.
    pub messages: Vec<Message>,
    /// Server-sent events instead of one body.
    #[serde(default)]
    pub stream: bool,
    /// `{"include_usage": true}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_options: Option<StreamOptions>,
    /// Old name of `max_completion_tokens`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// Tokens to generate at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_completion_tokens: Option<u32>,
    /// Choices; only 1 is served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n: Option<u32>,
    /// 0 is greedy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Nucleus sampling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// Keep the k likeliest (llama.cpp's extension).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_k: Option<u32>,
    /// Minimum relative probability (llama.cpp's extension).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_p: Option<f64>,
    /// llama.cpp's extension.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeat_penalty: Option<f64>,
    /// Penalty for presence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub presence_penalty: Option<f64>,
    /// Penalty for frequency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frequency_penalty: Option<f64>,
    /// Sampling seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u32>,
    /// A string or up to 16 strings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<Value>,
    /// Return log probabilities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<bool>,
    /// How many alternatives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_logprobs: Option<u32>,
    /// Biases per token id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logit_bias: Option<Value>,
    /// Functions the model may call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<Value>,
    /// Which of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_choice: Option<Value>,
    /// Several at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallel_tool_calls: Option<bool>,
    /// Text, JSON object or JSON Schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_format: Option<Value>,
    /// How hard to think.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_effort: Option<Value>,
    /// Arguments of the chat template (llama.cpp's extension).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat_template_kwargs: Option<Value>,
}

/// `POST /v1/completions`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
pub struct TextCompletionRequest {
    /// Pool id, alias or model name.
    pub model: String,
    /// A text, or a list with one text.
    pub prompt: Value,
    /// Server-sent events instead of one body.
    #[serde(default)]
    pub stream: bool,
    /// `{"include_usage": true}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_options: Option<StreamOptions>,
    /// Tokens to generate at most; 16 where none is said, as OpenAI documents it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// Choices; only 1 is served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n: Option<u32>,
    /// Candidates; only 1 is served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best_of: Option<u32>,
    /// The prompt before the text; only false is served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub echo: Option<bool>,
    /// Text after the completion; not served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suffix: Option<String>,
    /// Log probabilities; not served here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<u32>,
    /// 0 is greedy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Nucleus sampling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// Keep the k likeliest (llama.cpp's extension).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_k: Option<u32>,
    /// Minimum relative probability (llama.cpp's extension).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_p: Option<f64>,
    /// llama.cpp's extension.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeat_penalty: Option<f64>,
    /// Penalty for presence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub presence_penalty: Option<f64>,
    /// Penalty for frequency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frequency_penalty: Option<f64>,
    /// Sampling seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u32>,
    /// A string or up to 16 strings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<Value>,
    /// Biases per token id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logit_bias: Option<Value>,
}

/// The answer to a `/v1/completions` request that does not stream.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct TextCompletion {
    /// `cmpl-<task id>`.
    pub id: String,
    /// `text_completion`.
    pub object: String,
    /// Seconds since the epoch.
    pub created: u64,
    /// The name the client asked for.
    pub model: String,
    /// One choice.
    pub choices: Vec<TextChoice>,
    /// Token counts, from the engine.
    pub usage: Usage,
}

/// A choice of a text completion, or a piece of one.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct TextChoice {
    /// Always 0.
    pub index: u32,
    /// The text.
    pub text: String,
    /// Always null.
    pub logprobs: Option<Value>,
    /// `stop` or `length`; null until the last piece.
    pub finish_reason: Option<String>,
}

/// Options of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StreamOptions {
    /// A last chunk with token counts.
    #[serde(default)]
    pub include_usage: bool,
}

/// The answer to a request that does not stream. Choices are the engine's own.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ChatCompletion {
    /// `chatcmpl-<task id>`.
    pub id: String,
    /// `chat.completion`.
    pub object: String,
    /// Seconds since the epoch.
    pub created: u64,
    /// The name the client asked for.
    pub model: String,
    /// One choice.
    pub choices: Vec<Value>,
    /// Token counts, from the engine.
    pub usage: Usage,
}

/// Token counts, from the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Usage {
    /// Of the prompt.
    pub prompt_tokens: u64,
    /// Generated.
    pub completion_tokens: u64,
    /// Both.
    pub total_tokens: u64,
}

/// `POST /v1/embeddings`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct EmbeddingsRequest {
    /// Pool id, alias or model name; of a pool with `kind: embedding`.
    pub model: String,
    /// A text, a list of texts, a list of token ids, or a list of such lists; at most 2,048.
    pub input: Value,
    /// `float` or `base64`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding_format: Option<String>,
    /// Not served: vectors have the model's own size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dimensions: Option<u32>,
}

/// The answer to `POST /v1/embeddings`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct EmbeddingList {
    /// Always `list`.
    pub object: String,
    /// `{object: embedding, index, embedding}`, in the order of the input.
    pub data: Vec<Value>,
    /// The name the client asked for.
    pub model: String,
    /// Token counts, from the engine.
    pub usage: Usage,
}

/// `POST /v1/rerank`, in the shape that Jina and Cohere share.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct RerankRequest {
    /// Pool id, alias or model name; of a pool with `kind: rerank`.
    pub model: String,
    /// What is looked for.
    pub query: String,
    /// Texts, or objects with a `text`; at most 2,048.
    pub documents: Vec<Value>,
    /// Only the best so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_n: Option<u32>,
    /// Whether results repeat their document's text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub return_documents: Option<bool>,
}

/// The answer to `POST /v1/rerank`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Reranked {
    /// Always `list`.
    pub object: String,
    /// The name the client asked for.
    pub model: String,
    /// `{index, relevance_score, document?}`, best first.
    pub results: Vec<Value>,
    /// Token counts, from the engine.
    pub usage: Usage,
}

/// `GET /v1/models`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ModelList {
    /// Always `list`.
    pub object: String,
    /// Pools and their aliases.
    pub data: Vec<ModelCard>,
    /// As Anthropic's SDKs read it: there is no further page.
    pub has_more: bool,
    /// Likewise, the first one's `id`; null for none.
    pub first_id: Option<String>,
    /// Likewise, the last one's.
    pub last_id: Option<String>,
}

/// One model.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ModelCard {
    /// The name to send as `model`.
    pub id: String,
    /// Always `model`.
    pub object: String,
    /// Seconds since the epoch.
    pub created: u64,
    /// Always `llama-orch`.
    pub owned_by: String,
    /// What Anthropic's SDKs call `object`.
    pub r#type: String,
    /// What they show: the name.
    pub display_name: String,
    /// What they call `created`: RFC 3339, UTC.
    pub created_at: String,
}
