//! `POST /v1/responses`.

use adapter_host::{ChatRequest, EngineRequest};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use wire::config::PoolKind;
use wire::responses::ResponsesRequest;

use super::render::Events;
use super::{convert, render};
use crate::http::door::Asked;
use crate::http::error::ApiError;
use crate::http::extract::JsonBody;
use crate::http::{AppState, openai};
use crate::tokens::Caller;

pub(in crate::http) async fn create(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    body: JsonBody<ResponsesRequest>,
) -> Result<Response, ApiError> {
    let request = body.value;
    let chat = convert::chat(&request)?;
    openai::check(&chat)?;
    let asked = Asked::of(&state, &caller, &request.model, PoolKind::Chat)?;
    let chat = ChatRequest { request: chat, cache_prompt: asked.cache_prompt() };
    let begun = asked.begin(EngineRequest::Chat(Box::new(chat)), &body.bytes, body.trace).await?;
    let (stream, events) = (request.stream, Events::new(&begun.id, request));
    if stream {
        begun.stream(events).await
    } else {
        Ok(Json(render::whole(events, begun).await?).into_response())
    }
}
