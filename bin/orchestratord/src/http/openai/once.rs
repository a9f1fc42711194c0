//! `POST /v1/embeddings` and `POST /v1/rerank`: answered at once, through the same queue.

use adapter_host::{EmbeddingRequest, EngineRequest, Input, RerankRequest};
use axum::extract::State;
use axum::{Extension, Json};
use serde_json::{Value, json};
use task_log::Entry;
use wire::config::PoolKind;
use wire::event::End;
use wire::openai::{self, EmbeddingList, EmbeddingsRequest, Reranked};

use super::render::usage;
use crate::http::AppState;
use crate::http::door::{Asked, Begun, without_end};
use crate::http::error::{ApiError, from_stream};
use crate::http::extract::JsonBody;
use crate::http::validate::MAX_INPUTS;
use crate::tokens::Caller;

pub(in crate::http) async fn embeddings(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    body: JsonBody<EmbeddingsRequest>,
) -> Result<Json<EmbeddingList>, ApiError> {
    let request = body.value;
    if request.dimensions.is_some() {
        return Err(ApiError::invalid(
            "dimensions",
            "dimensions is not served: vectors have the model's own size",
        ));
    }
    let base64 = match request.encoding_format.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(_) => {
            return Err(ApiError::invalid("encoding_format", "encoding_format must be float or base64"));
        }
    };
    let inputs = inputs(&request.input)?;
    let asked = Asked::of(&state, &caller, &request.model, PoolKind::Embedding)?;
    let embedding = EngineRequest::Embedding(EmbeddingRequest { inputs, base64 });
    let (mut answer, end) = answer(asked.begin(embedding, &body.bytes, body.trace).await?).await?;
    let object = "list".to_owned();
    Ok(Json(EmbeddingList {
        object,
        data: take(&mut answer, "data"),
        model: request.model,
        usage: usage(&end),
    }))
}

pub(in crate::http) async fn rerank(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    body: JsonBody<openai::RerankRequest>,
) -> Result<Json<Reranked>, ApiError> {
    let request = body.value;
    let documents = documents(&request.documents)?;
    if request.top_n == Some(0) {
        return Err(ApiError::invalid("top_n", "top_n must be at least 1"));
    }
    let asked = Asked::of(&state, &caller, &request.model, PoolKind::Rerank)?;
    let rerank = RerankRequest { query: request.query, documents: documents.clone(), top_n: request.top_n };
    let (mut answer, end) =
        answer(asked.begin(EngineRequest::Rerank(rerank), &body.bytes, body.trace).await?).await?;
    let mut results = take(&mut answer, "results");
    if request.return_documents == Some(true) {
        for result in &mut results {
            let at = result["index"].as_u64().and_then(|index| usize::try_from(index).ok());
            if let Some(text) = at.and_then(|at| documents.get(at)) {
                result["document"] = json!({"text": text});
            }
        }
    }
    let object = "list".to_owned();
    Ok(Json(Reranked { object, model: request.model, results, usage: usage(&end) }))
}

/// The engine's answer and what it cost.
async fn answer(mut begun: Begun) -> Result<(Value, End), ApiError> {
    let mut answer = Value::Null;
    while let Some(entry) = begun.next().await {
        match entry.as_ref() {
            Entry::Started(_) | Entry::Resumed(_) => {}
            Entry::Chunk { chunk, .. } => answer = serde_json::from_str(chunk.raw()).unwrap_or_default(),
            Entry::End(end) => return Ok((answer, end.clone())),
            Entry::Error(error) => return Err(from_stream(error).into()),
        }
    }
    Err(without_end())
}

fn take(answer: &mut Value, name: &str) -> Vec<Value> {
    match answer[name].take() {
        Value::Array(items) => items,
        _ => Vec::new(),
    }
}

fn inputs(input: &Value) -> Result<Vec<Input>, ApiError> {
    let bad = || {
        let rule =
            "input must be a text, a list of texts, a list of token ids, or a list of such lists, none empty";
        ApiError::invalid("input", rule)
    };
    let text = |text: &str| if text.is_empty() { Err(bad()) } else { Ok(Input::Text(text.to_owned())) };
    let ids = |list: &[Value]| {
        let ids = list.iter().map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(bad));
        ids.collect::<Result<Vec<u32>, _>>().map(Input::Ids)
    };
    let inputs = match input {
        Value::String(one) => vec![text(one)?],
        Value::Array(list) if list.first().is_some_and(Value::is_number) => vec![ids(list)?],
        Value::Array(list) => list
            .iter()
            .map(|item| match item {
                Value::String(one) => text(one),
                Value::Array(list) if !list.is_empty() => ids(list),
                _ => Err(bad()),
            })
            .collect::<Result<_, _>>()?,
        _ => return Err(bad()),
    };
    within_bound("input", inputs)
}

fn documents(documents: &[Value]) -> Result<Vec<String>, ApiError> {
    let text = |document: &Value| {
        let text = document.as_str().or_else(|| document["text"].as_str());
        text.map(str::to_owned).ok_or_else(|| {
            ApiError::invalid("documents", "documents must be texts, or objects with a `text`")
        })
    };
    within_bound("documents", documents.iter().map(text).collect::<Result<_, _>>()?)
}

fn within_bound<T>(param: &str, items: Vec<T>) -> Result<Vec<T>, ApiError> {
    if (1..=MAX_INPUTS).contains(&items.len()) {
        return Ok(items);
    }
    Err(ApiError::invalid(param, format!("{param} must be 1 to {MAX_INPUTS}")))
}
