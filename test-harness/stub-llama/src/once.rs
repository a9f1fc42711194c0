//! What is answered at once, without tokens: vectors and scores. They mean nothing, and are the same
//! for the same text. Each takes a slot for as long as a prefill takes.

use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use serde_json::{Value, json};

use crate::http::{answer, parse, refuse};
use crate::server::Shared;
use crate::tokenize;

/// Numbers in a vector.
const SIZE: usize = 4;

pub(crate) async fn embeddings(State(shared): State<Shared>, body: Bytes) -> Response {
    let body = match parse(&body) {
        Ok(body) => body,
        Err(refusal) => return *refusal,
    };
    let inputs = match &body["input"] {
        Value::Array(list) if !list.iter().all(Value::is_number) => list.clone(),
        input => vec![input.clone()],
    };
    let tokens: Vec<Vec<u32>> = inputs.iter().map(ids).collect();
    let count = tokens.iter().map(Vec::len).sum();
    let base64 = body["encoding_format"] == "base64";
    let data: Value = tokens
        .iter()
        .enumerate()
        .map(|(index, ids)| {
            let vector = if base64 { json!("AAAAAAAAgD8=") } else { json!(vector(ids)) };
            json!({"object": "embedding", "index": index, "embedding": vector})
        })
        .collect();
    work(&shared, count, &json!({"model": "stub", "object": "list", "usage": usage(count), "data": data}))
        .await
}

pub(crate) async fn rerank(State(shared): State<Shared>, body: Bytes) -> Response {
    let body = match parse(&body) {
        Ok(body) => body,
        Err(refusal) => return *refusal,
    };
    let query = ids(&body["query"]);
    let documents: Vec<Vec<u32>> = body["documents"].as_array().into_iter().flatten().map(ids).collect();
    let mut scores: Vec<(usize, usize)> = documents
        .iter()
        .enumerate()
        .map(|(at, ids)| (at, ids.iter().filter(|id| query.contains(id)).count()))
        .collect();
    scores.sort_by_key(|(at, score)| (std::cmp::Reverse(*score), *at));
    scores.truncate(body["top_n"].as_u64().map_or(usize::MAX, |n| n as usize));
    let results: Value =
        scores.iter().map(|(at, score)| json!({"index": at, "relevance_score": score})).collect();
    let count = query.len() + documents.iter().map(Vec::len).sum::<usize>();
    work(
        &shared,
        count,
        &json!({"model": "stub", "object": "list", "usage": usage(count), "results": results}),
    )
    .await
}

async fn work(shared: &Shared, tokens: usize, body: &Value) -> Response {
    let Some(mut lease) = shared.slots().acquire(tokens as u64, None).await else {
        return refuse(503, "unavailable_error", "going down");
    };
    tokio::time::sleep(shared.faults().prefill).await;
    lease.finish();
    answer(200, body)
}

fn ids(input: &Value) -> Vec<u32> {
    match input {
        Value::Array(ids) => ids.iter().filter_map(|id| u32::try_from(id.as_u64()?).ok()).collect(),
        text => tokenize(text.as_str().unwrap_or_default()),
    }
}

fn vector(ids: &[u32]) -> Vec<f64> {
    (0..SIZE)
        .map(|at| f64::from(ids.iter().skip(at).step_by(SIZE).fold(0, |sum, id| (sum + id) % 1_000)) / 1e3)
        .collect()
}

fn usage(tokens: usize) -> Value {
    json!({"prompt_tokens": tokens, "total_tokens": tokens})
}
