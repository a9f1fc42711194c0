//! The JSON the real server writes, field for field where clients look.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::generation::{End, Piece, Plan};

/// Which API a generation answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// `/completion`.
    Native,
    /// `/v1/chat/completions`.
    Chat,
}

/// Microseconds since the epoch.
pub(crate) fn micros() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_micros())
}

pub(crate) fn error(status: u16, kind: &str, message: &str) -> Value {
    json!({"error": {"code": status, "message": message, "type": kind}})
}

/// The frames of one token.
pub(crate) fn piece(plan: &Plan, piece: &Piece) -> Vec<Value> {
    match plan.dialect {
        Dialect::Native => vec![json!({
            "index": 0, "content": piece.text, "tokens": [piece.id], "stop": false, "id_slot": piece.slot,
            "tokens_predicted": piece.count, "tokens_evaluated": plan.prompt.len(),
        })],
        Dialect::Chat => chat_piece(plan, piece),
    }
}

fn chat_piece(plan: &Plan, piece: &Piece) -> Vec<Value> {
    let mut frames = Vec::new();
    if piece.count == 1 {
        frames.push(chunk(plan, json!({"role": "assistant", "content": null}), Value::Null));
    }
    if !piece.text.is_empty() {
        let mut frame = chunk(plan, json!({"content": piece.text}), Value::Null);
        if plan.logprobs {
            frame["choices"][0]["logprobs"] = json!({"content": [logprob(piece)]});
        }
        frames.push(frame);
    }
    frames
}

fn logprob(piece: &Piece) -> Value {
    json!({
        "id": piece.id, "token": piece.text, "bytes": piece.text.as_bytes(), "logprob": -0.5,
        "top_logprobs": [],
    })
}

/// The frames that end a stream.
pub(crate) fn end(plan: &Plan, end: &End) -> Vec<Value> {
    match plan.dialect {
        Dialect::Native => vec![native_end(plan, end, "", &[])],
        Dialect::Chat => {
            let mut frames = vec![chunk(plan, json!({}), json!(finish_reason(end)))];
            if plan.include_usage {
                let mut last = chunk(plan, json!({}), Value::Null);
                last["choices"] = json!([]);
                last["usage"] = usage(plan, end);
                frames.push(last);
            }
            if let Some(last) = frames.last_mut() {
                last["timings"] = timings(plan, end);
            }
            frames
        }
    }
}

/// The one body of an answer that is not streamed.
pub(crate) fn whole(plan: &Plan, end: &End, text: &str, tokens: &[u32]) -> Value {
    match plan.dialect {
        Dialect::Native => native_end(plan, end, text, if plan.return_tokens { tokens } else { &[] }),
        Dialect::Chat => json!({
            "choices": [{
                "finish_reason": finish_reason(end), "index": 0,
                "message": {"role": "assistant", "content": text},
            }],
            "created": now(), "model": plan.model, "system_fingerprint": "stub", "object": "chat.completion",
            "usage": usage(plan, end), "id": plan.id, "timings": timings(plan, end),
        }),
    }
}

fn native_end(plan: &Plan, end: &End, text: &str, tokens: &[u32]) -> Value {
    json!({
        "index": 0, "content": text, "tokens": tokens, "id_slot": end.slot, "stop": true, "model": plan.model,
        "tokens_predicted": end.count, "tokens_evaluated": plan.prompt.len(),
        "generation_settings": {
            "n_predict": plan.limit.map_or(-1, |n| n as i64), "seed": plan.seed, "temperature": 0.8,
            "top_k": 40, "top_p": 0.95, "samplers": ["penalties", "top_k", "top_p", "temperature"],
        },
        "prompt": plan.prompt_text, "has_new_line": false, "truncated": end.truncated,
        "stop_type": end.stop_type, "stopping_word": end.stopping_word,
        "tokens_cached": plan.prompt.len() as u64 + end.count, "timings": timings(plan, end),
    })
}

fn finish_reason(end: &End) -> &'static str {
    if end.stop_type == "limit" { "length" } else { "stop" }
}

fn chunk(plan: &Plan, delta: Value, finish_reason: Value) -> Value {
    json!({
        "choices": [{"finish_reason": finish_reason, "index": 0, "delta": delta}],
        "created": now(), "id": plan.id, "model": plan.model, "system_fingerprint": "stub",
        "object": "chat.completion.chunk",
    })
}

fn usage(plan: &Plan, end: &End) -> Value {
    json!({
        "completion_tokens": end.count, "prompt_tokens": plan.prompt.len(),
        "total_tokens": end.count + plan.prompt.len() as u64,
        "prompt_tokens_details": {"cached_tokens": 0},
    })
}

fn timings(plan: &Plan, end: &End) -> Value {
    json!({
        "cache_n": 0, "prompt_n": plan.prompt.len(), "prompt_ms": 1.0, "prompt_per_token_ms": 1.0,
        "prompt_per_second": 1000.0, "predicted_n": end.count, "predicted_ms": 1.0,
        "predicted_per_token_ms": 1.0, "predicted_per_second": 1000.0,
    })
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
