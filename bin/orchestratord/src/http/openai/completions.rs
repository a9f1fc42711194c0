//! `POST /v1/completions`: the text behind a prompt.

use adapter_host::{CompletionRequest, EngineRequest, Prompt, Sampling, SoFar};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::{Value, json};
use task_log::Entry;
use wire::config::PoolKind;
use wire::openai::{TextChoice, TextCompletion, TextCompletionRequest};

use super::params;
use super::render::{self, Reply, finish_reason, usage};
use crate::http::door::{Asked, Begun, Render, without_end};
use crate::http::error::{ApiError, from_stream};
use crate::http::extract::JsonBody;
use crate::http::{AppState, validate};
use crate::tokens::Caller;

/// As OpenAI documents it.
const DEFAULT_MAX_TOKENS: u32 = 16;
const OBJECT: &str = "text_completion";

pub(in crate::http) async fn completions(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    body: JsonBody<TextCompletionRequest>,
) -> Result<Response, ApiError> {
    let request = body.value;
    let (prompt, sampling) = (prompt(&request)?, sampling(&request)?);
    let asked = Asked::of(&state, &caller, &request.model, PoolKind::Chat)?;
    let cache_prompt = asked.cache_prompt();
    let completion =
        CompletionRequest { prompt: Prompt::Text(prompt), sampling, cache_prompt, so_far: SoFar::Nothing };
    let begun = asked.begin(EngineRequest::Completion(completion), &body.bytes, body.trace).await?;
    let include_usage = request.stream_options.is_some_and(|options| options.include_usage);
    let reply = Reply::new("cmpl", OBJECT, &begun.id, request.model, include_usage);
    if request.stream {
        begun.stream(Pieces(reply)).await
    } else {
        Ok(Json(whole(reply, begun).await?).into_response())
    }
}

fn prompt(request: &TextCompletionRequest) -> Result<String, ApiError> {
    match &request.prompt {
        Value::String(text) => Ok(text.clone()),
        Value::Array(texts) => match texts.as_slice() {
            [Value::String(text)] => Ok(text.clone()),
            _ => Err(ApiError::invalid(
                "prompt",
                "a list of prompts must hold one text; send a request for each",
            )),
        },
        _ => Err(ApiError::invalid("prompt", "prompt must be a text")),
    }
}

fn sampling(request: &TextCompletionRequest) -> Result<Sampling, ApiError> {
    params::one_choice("n", request.n)?;
    params::one_choice("best_of", request.best_of)?;
    let unserved =
        |param: &str, why: &str| Err(ApiError::invalid(param, format!("{param} is not served: {why}")));
    if request.echo == Some(true) {
        return unserved("echo", "put the prompt before the text yourself");
    }
    if request.suffix.as_ref().is_some_and(|suffix| !suffix.is_empty()) {
        return unserved("suffix", "write the prompt as the model's fill-in-the-middle format asks");
    }
    if request.logprobs.is_some_and(|n| n > 0) {
        return unserved("logprobs", "/v1/chat/completions has them");
    }
    let penalty = |param, value| validate::within(param, value, -2.0, 2.0);
    Ok(Sampling {
        max_tokens: validate::max_tokens("max_tokens", request.max_tokens.or(Some(DEFAULT_MAX_TOKENS)))?,
        seed: request.seed,
        temperature: validate::within("temperature", request.temperature, 0.0, 10.0)?,
        top_p: validate::within("top_p", request.top_p, 0.0, 1.0)?,
        top_k: request.top_k,
        min_p: validate::within("min_p", request.min_p, 0.0, 1.0)?,
        repeat_penalty: validate::within("repeat_penalty", request.repeat_penalty, 0.0, 10.0)?,
        presence_penalty: penalty("presence_penalty", request.presence_penalty)?,
        frequency_penalty: penalty("frequency_penalty", request.frequency_penalty)?,
        logit_bias: request.logit_bias.clone(),
        stop: params::stops(request.stop.as_ref())?,
        grammar: None,
        json_schema: None,
    })
}

async fn whole(reply: Reply, mut begun: Begun) -> Result<TextCompletion, ApiError> {
    let mut text = String::new();
    while let Some(entry) = begun.next().await {
        match entry.as_ref() {
            Entry::Started(_) | Entry::Resumed(_) => {}
            Entry::Chunk { chunk, .. } => text.push_str(&chunk.text),
            Entry::End(end) => {
                let finish_reason = Some(finish_reason(end).to_owned());
                let choice = TextChoice { index: 0, text, logprobs: None, finish_reason };
                let Reply { id, created, model, .. } = reply;
                let (object, choices, usage) = (OBJECT.to_owned(), vec![choice], usage(end));
                return Ok(TextCompletion { id, object, created, model, choices, usage });
            }
            Entry::Error(error) => return Err(from_stream(error).into()),
        }
    }
    Err(without_end())
}

/// A streamed completion.
struct Pieces(Reply);

impl Render for Pieces {
    fn entry(&mut self, entry: &Entry, out: &mut Vec<u8>) {
        let choices = |text: &str, finish_reason: Option<&str>| {
            let (text, reason) = (json!(text), json!(finish_reason));
            format!(r#""choices":[{{"index":0,"text":{text},"logprobs":null,"finish_reason":{reason}}}]"#)
        };
        match entry {
            Entry::Chunk { chunk, .. } if !chunk.text.is_empty() => {
                self.0.put(&choices(&chunk.text, None), out);
            }
            Entry::Started(_) | Entry::Resumed(_) | Entry::Chunk { .. } => {}
            Entry::End(end) => {
                self.0.put(&choices("", Some(finish_reason(end))), out);
                self.0.end(end, out);
            }
            Entry::Error(failure) => render::error(failure, out),
        }
    }
}
