//! `POST /v1/messages/count_tokens`: what a prompt would be to the engine that answers it. Takes no
//! slot and no place in the queue, and generates nothing.

use adapter_host::ChatRequest;
use axum::extract::State;
use axum::{Extension, Json};
use wire::anthropic::{CountTokensRequest, MessagesRequest, TokenCount};
use wire::config::PoolKind;
use wire::task::Message;

use super::convert;
use crate::http::door::Asked;
use crate::http::error::ApiError;
use crate::http::extract::JsonBody;
use crate::http::{AppState, context, openai};
use crate::tokens::Caller;

pub(in crate::http) async fn count_tokens(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    body: JsonBody<CountTokensRequest>,
) -> Result<Json<TokenCount>, ApiError> {
    let request = as_message(body.value);
    let chat = convert::chat(&request)?;
    openai::check(&chat)?;
    if let Some(at) = chat.messages.iter().position(has_image) {
        let message = "an image has no number of tokens before its engine has read it; count the text alone";
        return Err(ApiError::invalid(&format!("messages[{at}]"), message));
    }
    let asked = Asked::of(&state, &caller, &request.model, PoolKind::Chat)?;
    let chat = ChatRequest { request: chat, cache_prompt: asked.cache_prompt() };
    let input_tokens = context::count(&state, asked.pool(), &chat, body.trace.as_ref()).await?;
    Ok(Json(TokenCount { input_tokens }))
}

/// The message that would be asked for; only its prompt matters.
fn as_message(request: CountTokensRequest) -> MessagesRequest {
    let CountTokensRequest { model, messages, system, tools, tool_choice } = request;
    MessagesRequest {
        model,
        messages,
        system,
        tools,
        tool_choice,
        max_tokens: 1,
        stream: false,
        stop_sequences: None,
        temperature: None,
        top_p: None,
        top_k: None,
        thinking: None,
    }
}

fn has_image(message: &Message) -> bool {
    message.content.as_array().into_iter().flatten().any(|part| part["type"] == "image_url")
}
