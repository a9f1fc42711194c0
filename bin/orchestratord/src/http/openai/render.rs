//! The task log as OpenAI chunks: the engine's own JSON with our id, time and model name, so that
//! tool calls, reasoning and log probabilities arrive as the engine sent them.

use std::sync::Arc;

use axum::response::Response;
use bytes::Bytes;
use serde_json::{Map, Value, json};
use task_log::{Entry, Follower};
use wire::ErrorEnvelope;
use wire::event::{End, FinishReason};
use wire::openai::Usage;

use crate::http::error::from_stream;
use crate::http::sse;
use crate::metrics::OpenStream;

/// What every chunk of one answer says about it.
pub(super) struct Reply {
    pub(super) id: String,
    pub(super) created: u64,
    pub(super) model: String,
    pub(super) include_usage: bool,
}

/// Where the rendering of one answer stands.
struct Rendering {
    reply: Reply,
    /// Read before the head was sent.
    early: Option<Arc<Entry>>,
    follower: Follower,
    /// The engine's chunks already said why the generation ended.
    finish_sent: bool,
    done: bool,
    _open: OpenStream,
}

pub(super) fn stream(
    reply: Reply,
    early: Option<Arc<Entry>>,
    follower: Follower,
    open: OpenStream,
) -> Response {
    let rendering = Rendering { reply, early, follower, finish_sent: false, done: false, _open: open };
    sse::response(futures_util::stream::unfold(rendering, |mut rendering| async move {
        let bytes = rendering.next().await?;
        Some((bytes, rendering))
    }))
}

impl Rendering {
    async fn next(&mut self) -> Option<Bytes> {
        while !self.done {
            let entry = match self.early.take() {
                Some(entry) => entry,
                None => match tokio::time::timeout(sse::KEEPALIVE_EVERY, self.follower.next()).await {
                    Ok(next) => next?.1,
                    Err(_) => return Some(sse::KEEPALIVE),
                },
            };
            let mut out = self.render(&entry);
            while out.len() < sse::WRITE_BYTES
                && let Some((_, entry)) = self.follower.try_next()
            {
                out.extend(self.render(&entry));
            }
            if !out.is_empty() {
                return Some(Bytes::from(out));
            }
        }
        None
    }

    fn render(&mut self, entry: &Entry) -> Vec<u8> {
        match entry {
            Entry::Started(_) | Entry::Resumed(_) => Vec::new(),
            Entry::Chunk { chunk, .. } => match self.reply.chunk(chunk.raw.get()) {
                Some(value) => {
                    self.finish_sent |= !value["choices"][0]["finish_reason"].is_null();
                    sse::data_frame(&value.to_string()).to_vec()
                }
                None => Vec::new(),
            },
            Entry::End(end) => {
                self.done = true;
                self.end(end)
            }
            Entry::Error(error) => {
                self.done = true;
                let envelope = ErrorEnvelope { error: from_stream(error) };
                let text = serde_json::to_string(&envelope).unwrap_or_default();
                sse::data_frame(&text).to_vec()
            }
        }
    }

    fn end(&self, end: &End) -> Vec<u8> {
        let mut out = Vec::new();
        if !self.finish_sent {
            let choices = json!([{"index": 0, "delta": {}, "finish_reason": finish_reason(end)}]);
            out.extend(sse::data_frame(&self.reply.own_chunk(choices, None).to_string()));
        }
        if self.reply.include_usage {
            let usage = usage(end);
            out.extend(sse::data_frame(&self.reply.own_chunk(json!([]), Some(usage)).to_string()));
        }
        out.extend(sse::data_frame("[DONE]"));
        out
    }
}

impl Reply {
    /// The engine's chunk with our envelope; `None` for anything without choices.
    pub(super) fn chunk(&self, raw: &str) -> Option<Value> {
        let mut chunk: Map<String, Value> = serde_json::from_str(raw).ok()?;
        chunk.get("choices")?.as_array().filter(|choices| !choices.is_empty())?;
        chunk.insert("id".to_owned(), Value::from(self.id.as_str()));
        chunk.insert("created".to_owned(), Value::from(self.created));
        chunk.insert("model".to_owned(), Value::from(self.model.as_str()));
        chunk.insert("object".to_owned(), Value::from("chat.completion.chunk"));
        chunk.remove("__verbose");
        Some(Value::Object(chunk))
    }

    fn own_chunk(&self, choices: Value, usage: Option<Usage>) -> Value {
        let mut chunk = json!({
            "id": self.id, "object": "chat.completion.chunk", "created": self.created,
            "model": self.model, "choices": choices,
        });
        if let Some(usage) = usage {
            chunk["usage"] = json!(usage);
        }
        chunk
    }
}

pub(super) fn usage(end: &End) -> Usage {
    // The protocol has no way to say "unknown", which only a cancelled task's count is.
    let tokens_in = end.tokens_in.unwrap_or(0);
    Usage {
        prompt_tokens: tokens_in,
        completion_tokens: end.tokens_out,
        total_tokens: tokens_in + end.tokens_out,
    }
}

pub(super) fn finish_reason(end: &End) -> &'static str {
    match end.finish_reason {
        FinishReason::Length => "length",
        FinishReason::Stop | FinishReason::Cancelled => "stop",
    }
}
