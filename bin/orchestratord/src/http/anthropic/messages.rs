//! `POST /v1/messages`.

use adapter_host::{ChatRequest, EngineRequest};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use wire::anthropic::MessagesRequest;
use wire::config::PoolKind;

use super::render::{Events, Reply};
use super::{convert, render};
use crate::http::door::Asked;
use crate::http::error::ApiError;
use crate::http::extract::JsonBody;
use crate::http::{AppState, openai, validate};
use crate::tokens::Caller;

pub(in crate::http) async fn messages(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    body: JsonBody<MessagesRequest>,
) -> Result<Response, ApiError> {
    let request = body.value;
    validate::max_tokens("max_tokens", Some(request.max_tokens))?;
    let chat = convert::chat(&request)?;
    openai::check(&chat)?;
    let asked = Asked::of(&state, &caller, &request.model, PoolKind::Chat)?;
    let chat = ChatRequest { request: chat, cache_prompt: asked.cache_prompt() };
    let begun = asked.begin(EngineRequest::Chat(Box::new(chat)), &body.bytes, body.trace).await?;
    let thinking = request.thinking.is_some_and(|thinking| thinking.kind != "disabled");
    let reply = Reply { id: format!("msg_{}", begun.id), model: request.model, thinking };
    if request.stream {
        begun.stream(Events::new(reply)).await
    } else {
        Ok(Json(render::whole(reply, begun).await?).into_response())
    }
}
