//! The task log as OpenAI chunks: the engine's own JSON with our id, time and model name, so that
//! tool calls, reasoning and log probabilities arrive as the engine sent them.

use serde_json::json;
use task_log::Entry;
use wire::event::{End, FinishReason};
use wire::openai::Usage;
use wire::{EngineChunk, ErrorEnvelope, RawJson, TaskId};

use crate::http::door::Render;
use crate::http::error::from_stream;
use crate::http::sse;

/// What every chunk of one answer says about it.
pub(super) struct Reply {
    pub(super) id: String,
    pub(super) created: u64,
    pub(super) model: String,
    pub(super) include_usage: bool,
    /// The beginning of every frame: rendered once, because it is the same for each.
    head: String,
}

impl Reply {
    pub(super) fn new(prefix: &str, object: &str, id: &TaskId, model: String, include_usage: bool) -> Self {
        let (id, created) = (format!("{prefix}-{id}"), crate::http::state::unix_seconds());
        let head = json!({"id": id, "object": object, "created": created, "model": model}).to_string();
        let head = format!("data: {},", head.trim_end_matches('}'));
        Self { id, created, model, include_usage, head }
    }

    /// A frame with these members of an object's JSON behind its own.
    pub(super) fn put(&self, members: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(self.head.as_bytes());
        out.extend_from_slice(members.as_bytes());
        out.extend_from_slice(b"}\n\n");
    }

    /// What follows the last chunk with text.
    pub(super) fn end(&self, end: &End, out: &mut Vec<u8>) {
        if self.include_usage {
            self.put(&format!(r#""choices":[],"usage":{}"#, json!(usage(end))), out);
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }
}

/// The frame of a task that failed.
pub(super) fn error(error: &wire::event::StreamError, out: &mut Vec<u8>) {
    let envelope = ErrorEnvelope { error: from_stream(error) };
    let text = serde_json::to_string(&envelope).unwrap_or_default();
    out.extend_from_slice(&sse::data_frame(&text));
}

/// Where the rendering of a streamed chat stands.
pub(super) struct Chunks {
    reply: Reply,
    /// The engine's chunks already said why the generation ended.
    finish_sent: bool,
}

impl Chunks {
    pub(super) fn new(reply: Reply) -> Self {
        Self { reply, finish_sent: false }
    }

    fn chunk(&mut self, chunk: &EngineChunk, out: &mut Vec<u8>) {
        let Some(shown) = chunk.raw.as_ref().and_then(RawJson::members) else { return };
        self.finish_sent |= chunk.finishes;
        self.reply.put(shown, out);
    }
}

impl Render for Chunks {
    fn entry(&mut self, entry: &Entry, out: &mut Vec<u8>) {
        match entry {
            Entry::Started(_) | Entry::Resumed(_) => {}
            Entry::Chunk { chunk, .. } => self.chunk(chunk, out),
            Entry::End(end) => {
                if !self.finish_sent {
                    let choices = json!([{"index": 0, "delta": {}, "finish_reason": finish_reason(end)}]);
                    self.reply.put(&format!(r#""choices":{choices}"#), out);
                }
                self.reply.end(end, out);
            }
            Entry::Error(failure) => error(failure, out),
        }
    }
}

pub(in crate::http) fn usage(end: &End) -> Usage {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// STREAM-007
    #[test]
    fn a_chunk_keeps_what_the_engine_said_and_gets_our_name() {
        let id = TaskId::try_new("t").unwrap();
        let mut chunks =
            Chunks::new(Reply::new("chatcmpl", "chat.completion.chunk", &id, "m\"".into(), false));
        let mut out = Vec::new();
        let raw = r#"{"system_fingerprint":"b1","choices":[{"index":0,"finish_reason":null,"delta":{"tool_calls":[{"index":0}]}}]}"#;
        let chunk = |raw: &str, finishes| {
            let raw = Some(RawJson::parse(raw).unwrap());
            EngineChunk { raw, finishes, ..EngineChunk::default() }
        };
        chunks.chunk(&chunk(raw, false), &mut out);
        assert!(!chunks.finish_sent);
        chunks.chunk(&EngineChunk::default(), &mut out);
        let end = r#"{"choices":[{"index":0,"finish_reason":"stop","delta":{}}],"timings":{"x":1}}"#;
        chunks.chunk(&chunk(end, true), &mut out);
        assert!(chunks.finish_sent);
        let text = String::from_utf8(out).unwrap();
        let frames: Vec<serde_json::Value> = text
            .split_terminator("\n\n")
            .map(|frame| serde_json::from_str(frame.strip_prefix("data: ").unwrap()).unwrap())
            .collect();
        assert_eq!(frames.len(), 2, "{text}");
        for frame in &frames {
            let known = serde_json::from_value::<wire::streams::ChatCompletionChunk>(frame.clone());
            assert!(known.is_ok(), "{frame} is not what the contract says: {known:?}");
        }
        assert_eq!((&frames[0]["id"], &frames[0]["model"]), (&json!("chatcmpl-t"), &json!("m\"")), "{text}");
        assert_eq!(frames[0]["choices"][0]["delta"]["tool_calls"][0]["index"], 0);
        assert_eq!(frames[0]["system_fingerprint"], "b1");
        assert_eq!(frames[1]["timings"]["x"], 1);
    }
}
