//! What a request asks for: how long its prompt is and how much it may generate.

use adapter_host::{CompletionRequest, EngineRequest, Input, Prompt};
use serde_json::Value;
use wire::task::{Message, Priority};

use crate::estimate::Asked;

impl Asked {
    /// Of a request to a pool with `ctx` tokens of context per slot (0: unknown). `tokens_in` is
    /// what the engine counted, where it was asked.
    pub(crate) fn of(request: &EngineRequest, priority: Priority, tokens_in: Option<u64>, ctx: u32) -> Self {
        let (bytes, max_tokens, cached) = match request {
            EngineRequest::Completion(CompletionRequest { prompt, sampling, cache_prompt, .. }) => {
                let bytes = match prompt {
                    Prompt::Text(text) => text.len(),
                    Prompt::Messages(messages) => bytes_of(messages),
                };
                (bytes, sampling.max_tokens, *cache_prompt)
            }
            EngineRequest::Chat(chat) => {
                let request = &chat.request;
                let max_tokens = request.max_completion_tokens.or(request.max_tokens);
                (bytes_of(&request.messages), max_tokens, chat.cache_prompt)
            }
            // Nothing is generated; one stands for the work of a single pass.
            EngineRequest::Embedding(embedding) => {
                (embedding.inputs.iter().map(bytes_in).sum(), Some(1), false)
            }
            EngineRequest::Rerank(rerank) => {
                let documents: usize = rerank.documents.iter().map(String::len).sum();
                (rerank.query.len() * rerank.documents.len() + documents, Some(1), false)
            }
        };
        let room = (ctx > 0).then_some(ctx);
        let at_most = max_tokens.into_iter().chain(room).min().map(u64::from);
        Self { priority, bytes, tokens_in, cached, at_most }
    }
}

fn bytes_in(input: &Input) -> usize {
    match input {
        Input::Text(text) => text.len(),
        // About what a token stands for.
        Input::Ids(ids) => ids.len() * 4,
    }
}

fn bytes_of(messages: &[Message]) -> usize {
    let part = |part: &Value| part["text"].as_str().map_or(0, str::len);
    let content = |message: &Message| match &message.content {
        Value::String(text) => text.len(),
        Value::Array(parts) => parts.iter().map(part).sum(),
        _ => 0,
    };
    messages.iter().map(content).sum()
}
