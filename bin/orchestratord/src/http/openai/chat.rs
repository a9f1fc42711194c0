//! `POST /v1/chat/completions`.

use adapter_host::{ChatRequest, EngineRequest};
use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use wire::config::PoolKind;
use wire::openai::ChatCompletionRequest;

use super::render::{Chunks, Reply};
use super::{collect, params};
use crate::http::door::Asked;
use crate::http::error::ApiError;
use crate::http::extract::JsonBody;
use crate::http::{AppState, validate};
use crate::tokens::Caller;

pub(in crate::http) async fn chat(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    body: JsonBody<ChatCompletionRequest>,
) -> Result<Response, ApiError> {
    let request = body.value;
    check(&request)?;
    let asked = Asked::of(&state, &caller, &request.model, PoolKind::Chat)?;
    let chat = ChatRequest { request: request.clone(), cache_prompt: asked.cache_prompt() };
    let begun = asked.begin(EngineRequest::Chat(Box::new(chat)), &body.bytes, body.trace).await?;
    let include_usage = request.stream_options.is_some_and(|options| options.include_usage);
    let reply = Reply::new("chatcmpl", "chat.completion.chunk", &begun.id, request.model, include_usage);
    if request.stream {
        begun.stream(Chunks::new(reply)).await
    } else {
        Ok(axum::Json(collect::whole(&reply, begun).await?).into_response())
    }
}

pub(in crate::http) fn check(request: &ChatCompletionRequest) -> Result<(), ApiError> {
    validate::check_messages(&request.messages)?;
    params::one_choice("n", request.n)?;
    validate::max_tokens("max_tokens", request.max_tokens)?;
    validate::max_tokens("max_completion_tokens", request.max_completion_tokens)?;
    validate::within("temperature", request.temperature, 0.0, 10.0)?;
    validate::within("top_p", request.top_p, 0.0, 1.0)?;
    validate::within("min_p", request.min_p, 0.0, 1.0)?;
    validate::within("repeat_penalty", request.repeat_penalty, 0.0, 10.0)?;
    validate::within("presence_penalty", request.presence_penalty, -2.0, 2.0)?;
    validate::within("frequency_penalty", request.frequency_penalty, -2.0, 2.0)?;
    if request.top_logprobs.is_some_and(|n| n > 20) {
        return Err(ApiError::invalid("top_logprobs", "top_logprobs must be 0 to 20"));
    }
    params::stops(request.stop.as_ref()).map(|_| ())
}
