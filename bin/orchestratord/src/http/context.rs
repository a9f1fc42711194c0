//! Whether a prompt fits the pool's context, asked before it is admitted: fewer bytes than tokens of
//! context pass at once, else the engine's own tokenizer decides. Without a ready engine the
//! question waits for the dispatch, where the engine answers it. And how long a prompt is, for who
//! wants to know only that.

use std::sync::Arc;

use adapter_host::{ChatRequest, CompletionRequest, EngineRequest, Prompt, SubmitError, WorkerAdapter};
use serde_json::Value;
use wire::task::Message;
use wire::{ErrorBody, ErrorCode, PoolId, TraceContext};

use super::AppState;
use super::error::ApiError;

/// Refuses a prompt that fits no ready replica of the pool; says how many tokens it has if it was
/// counted.
pub(super) async fn check(
    state: &AppState,
    pool: &PoolId,
    request: &EngineRequest,
    trace: Option<&TraceContext>,
) -> Result<Option<u64>, ApiError> {
    let Some((Some(ctx), adapter)) = roomiest(state, pool) else { return Ok(None) };
    let text = text_of(request);
    if text.len() < ctx as usize {
        return Ok(None);
    }
    match adapter.count_tokens(&text, trace).await {
        Ok(tokens) if tokens >= u64::from(ctx) => Err(ErrorBody::new(
            ErrorCode::ContextOverflow,
            format!("the prompt has at least {tokens} tokens, the context of pool {pool} holds {ctx}"),
        )
        .pool(pool.clone())
        .hint("shorten the prompt, or raise `ctx` of the pool")
        .into()),
        Ok(tokens) => Ok(Some(tokens)),
        // Without an answer nothing is known; the engine is asked again when the task gets its slot.
        Err(_) => Ok(None),
    }
}

/// How many tokens a chat's prompt has, by a ready engine of the pool.
pub(super) async fn count(
    state: &AppState,
    pool: &PoolId,
    chat: &ChatRequest,
    trace: Option<&TraceContext>,
) -> Result<u64, ApiError> {
    let unready = |why: String| {
        ErrorBody::new(ErrorCode::PoolUnready, format!("pool {pool} cannot count tokens now: {why}"))
            .pool(pool.clone())
            .retry_after_ms(2_000)
    };
    let Some((_, adapter)) = roomiest(state, pool) else {
        return Err(unready("none of its engines is ready".to_owned()).into());
    };
    adapter.count_chat(chat, trace).await.map_err(|error| match error {
        SubmitError::Refused(body) => body.pool(pool.clone()).into(),
        SubmitError::Lost(why) => unready(why).into(),
    })
}

/// A ready engine of the pool, of several the one with the most context.
fn roomiest(state: &AppState, pool: &PoolId) -> Option<(Option<u32>, Arc<dyn WorkerAdapter>)> {
    let snapshot = state.registry.snapshot();
    let ready = snapshot.pool(pool).filter(|(_, replica)| replica.ready);
    let (key, replica) = ready.max_by_key(|(_, replica)| replica.ctx)?;
    Some((replica.ctx, state.host.get(key, replica.generation)?))
}

/// The text of a request, without what the chat template adds: a lower bound.
fn text_of(request: &EngineRequest) -> String {
    match request {
        EngineRequest::Completion(CompletionRequest { prompt: Prompt::Text(text), .. }) => text.clone(),
        EngineRequest::Completion(CompletionRequest { prompt: Prompt::Messages(messages), .. }) => {
            joined(messages)
        }
        EngineRequest::Chat(chat) => joined(&chat.request.messages),
        // Each text must fit by itself; the engine tells which does not.
        EngineRequest::Embedding(_) | EngineRequest::Rerank(_) => String::new(),
    }
}

fn joined(messages: &[Message]) -> String {
    let mut text = String::new();
    for message in messages {
        match &message.content {
            Value::String(content) => text.push_str(content),
            Value::Array(parts) => {
                parts.iter().filter_map(|part| part["text"].as_str()).for_each(|t| text.push_str(t))
            }
            _ => {}
        }
        text.push('\n');
    }
    text
}
