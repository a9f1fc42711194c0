//! What an engine is asked to do, typed: client headers and unknown fields never get this far.
//!
//! Its JSON is what the journal keeps of a task that waits or runs.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use wire::openai::ChatCompletionRequest;

/// A generation.
#[expect(clippy::large_enum_variant, reason = "there is one per task, and both live on its heap")]
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum EngineRequest {
    /// Text completion; carries token ids in its chunks.
    Completion(CompletionRequest),
    /// OpenAI chat with everything its chunks can carry (tool calls, reasoning, logprobs).
    Chat(Box<ChatRequest>),
    /// Vectors of texts: answered by one chunk without text, the engine's whole answer.
    Embedding(EmbeddingRequest),
    /// Scores of documents for a query: answered as vectors are.
    Rerank(RerankRequest),
}

/// Vectors of texts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EmbeddingRequest {
    /// Of what; in this order.
    pub inputs: Vec<Input>,
    /// Vectors as base64 of little-endian floats instead of lists of numbers.
    pub base64: bool,
}

/// A text, or the tokens of one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Input {
    /// The text.
    Text(String),
    /// Its tokens, as the model's tokenizer numbers them.
    Ids(Vec<u32>),
}

/// Scores of documents for a query.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RerankRequest {
    /// What is looked for.
    pub query: String,
    /// Where; they are named by their place in this list.
    pub documents: Vec<String>,
    /// Only the best so many.
    pub top_n: Option<u32>,
}

/// Text completion.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CompletionRequest {
    /// What to continue.
    pub prompt: Prompt,
    /// How to sample.
    pub sampling: Sampling,
    /// Whether the engine may reuse its prompt cache; false on a deterministic pool.
    pub cache_prompt: bool,
    /// What another engine has answered already; this one goes on behind it.
    #[serde(skip)]
    pub so_far: SoFar,
}

/// The part of an answer that is there already. `max_tokens` counts what comes after it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum SoFar {
    /// None of it.
    #[default]
    Nothing,
    /// These tokens.
    Ids(Vec<u32>),
    /// This text, where not all of its ids are known; the engine's tokenizer reads it together with
    /// the prompt.
    Text(String),
}

/// What to continue.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Prompt {
    /// Text as it is.
    Text(String),
    /// Messages that the engine renders with the model's own chat template first.
    Messages(Vec<wire::task::Message>),
}

/// How to sample; `None` leaves the engine's default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each field is documented on wire::TaskRequest")]
pub struct Sampling {
    pub max_tokens: Option<u32>,
    pub seed: Option<u32>,
    pub temperature: Option<f64>,
    pub top_p: Option<f64>,
    pub top_k: Option<u32>,
    pub min_p: Option<f64>,
    pub repeat_penalty: Option<f64>,
    pub presence_penalty: Option<f64>,
    pub frequency_penalty: Option<f64>,
    pub logit_bias: Option<Value>,
    pub stop: Vec<String>,
    pub grammar: Option<String>,
    pub json_schema: Option<Value>,
}

/// OpenAI chat.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ChatRequest {
    /// The checked client request; the adapter sends its typed fields only.
    pub request: ChatCompletionRequest,
    /// As in [`CompletionRequest`].
    pub cache_prompt: bool,
}
