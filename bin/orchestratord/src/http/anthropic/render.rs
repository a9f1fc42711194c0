//! The task log as Anthropic's blocks: events of a stream, or one message.

use serde::Serialize;
use serde_json::{Value, json};
use task_log::Entry;
use wire::anthropic::{MessagesAnswer, MessagesUsage};
use wire::event::{End, FinishReason};

use super::reshape;
use crate::http::door::{Begun, Render, without_end};
use crate::http::error::{ApiError, from_stream};
use crate::http::openai::Joined;
use crate::http::sse;

/// What an answer says about itself.
pub(super) struct Reply {
    pub(super) id: String,
    pub(super) model: String,
    /// Whether the client asked to see reasoning.
    pub(super) thinking: bool,
}

impl Reply {
    fn message(
        &self,
        content: Vec<Value>,
        stop_reason: Option<String>,
        usage: MessagesUsage,
    ) -> MessagesAnswer {
        MessagesAnswer {
            id: self.id.clone(),
            kind: "message".to_owned(),
            role: "assistant".to_owned(),
            model: self.model.clone(),
            content,
            stop_reason,
            stop_sequence: None,
            usage,
        }
    }
}

/// The whole answer.
pub(super) async fn whole(reply: Reply, mut begun: Begun) -> Result<MessagesAnswer, ApiError> {
    let mut joined = Joined::default();
    while let Some(entry) = begun.next().await {
        match entry.as_ref() {
            Entry::Started(_) | Entry::Resumed(_) => {}
            Entry::Chunk { chunk, .. } => joined.chunk(chunk.raw()),
            Entry::End(end) => {
                let choice = joined.choice("stop");
                let reason = stop_reason(choice["finish_reason"].as_str(), end);
                return Ok(reply.message(
                    blocks(&choice["message"], reply.thinking),
                    Some(reason),
                    usage(end),
                ));
            }
            Entry::Error(error) => return Err(from_stream(error).into()),
        }
    }
    Err(without_end())
}

fn blocks(message: &Value, thinking: bool) -> Vec<Value> {
    let mut blocks = Vec::new();
    let text = |name: &str| message[name].as_str().filter(|text| !text.is_empty());
    if let Some(reasoning) = text("reasoning_content").filter(|_| thinking) {
        blocks.push(json!({"type": "thinking", "thinking": reasoning, "signature": ""}));
    }
    if let Some(content) = text("content") {
        blocks.push(json!({"type": "text", "text": content}));
    }
    for call in message["tool_calls"].as_array().into_iter().flatten() {
        let function = &call["function"];
        // Arguments that are not JSON are the model's mistake; they are shown, not hidden.
        let arguments = function["arguments"].as_str().unwrap_or_default();
        let input = serde_json::from_str(arguments).unwrap_or_else(|_| json!({"arguments": arguments}));
        blocks.push(json!({"type": "tool_use", "id": call["id"], "name": function["name"], "input": input}));
    }
    blocks
}

fn stop_reason(finish_reason: Option<&str>, end: &End) -> String {
    match (finish_reason, end.finish_reason) {
        (Some("tool_calls"), _) => "tool_use",
        (_, FinishReason::Length) => "max_tokens",
        (_, FinishReason::Stop | FinishReason::Cancelled) => "end_turn",
    }
    .to_owned()
}

fn usage(end: &End) -> MessagesUsage {
    MessagesUsage { input_tokens: end.tokens_in.unwrap_or(0), output_tokens: end.tokens_out }
}

/// The block that is open in a stream.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Block {
    Thinking,
    Text,
    /// By its index among the calls.
    Tool(u64),
}

/// Where the rendering of a stream stands.
pub(super) struct Events {
    reply: Reply,
    started: bool,
    open: Option<Block>,
    /// Blocks that were opened.
    blocks: u64,
    finish_reason: Option<String>,
}

impl Events {
    pub(super) fn new(reply: Reply) -> Self {
        Self { reply, started: false, open: None, blocks: 0, finish_reason: None }
    }

    fn start(&mut self, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.started, true) {
            let usage = MessagesUsage { input_tokens: 0, output_tokens: 0 };
            let message = self.reply.message(Vec::new(), None, usage);
            event("message_start", &json!({"type": "message_start", "message": message}), out);
        }
    }

    fn chunk(&mut self, raw: &str, out: &mut Vec<u8>) {
        let Ok(chunk) = serde_json::from_str::<Value>(raw) else { return };
        let choice = &chunk["choices"][0];
        if let Some(reason) = choice["finish_reason"].as_str() {
            self.finish_reason = Some(reason.to_owned());
        }
        let delta = &choice["delta"];
        let text = |name: &str| delta[name].as_str().filter(|text| !text.is_empty());
        if let Some(thinking) = text("reasoning_content").filter(|_| self.reply.thinking) {
            self.in_block(
                Block::Thinking,
                || json!({"type": "thinking", "thinking": "", "signature": ""}),
                out,
            );
            self.delta(&json!({"type": "thinking_delta", "thinking": thinking}), out);
        }
        if let Some(text) = text("content") {
            self.in_block(Block::Text, || json!({"type": "text", "text": ""}), out);
            self.delta(&json!({"type": "text_delta", "text": text}), out);
        }
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            let function = &call["function"];
            let block =
                || json!({"type": "tool_use", "id": call["id"], "name": function["name"], "input": {}});
            self.in_block(Block::Tool(call["index"].as_u64().unwrap_or(0)), block, out);
            if let Some(json) = function["arguments"].as_str().filter(|json| !json.is_empty()) {
                self.delta(&json!({"type": "input_json_delta", "partial_json": json}), out);
            }
        }
    }

    /// Makes `block` the open one.
    fn in_block(&mut self, block: Block, new: impl FnOnce() -> Value, out: &mut Vec<u8>) {
        if self.open == Some(block) {
            return;
        }
        self.close(out);
        let start = json!({"type": "content_block_start", "index": self.blocks, "content_block": new()});
        event("content_block_start", &start, out);
        self.open = Some(block);
        self.blocks += 1;
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        if self.open.take().is_some() {
            let stop = json!({"type": "content_block_stop", "index": self.blocks - 1});
            event("content_block_stop", &stop, out);
        }
    }

    fn delta(&self, delta: &Value, out: &mut Vec<u8>) {
        let index = self.blocks.saturating_sub(1);
        event(
            "content_block_delta",
            &json!({"type": "content_block_delta", "index": index, "delta": delta}),
            out,
        );
    }

    fn end(&mut self, end: &End, out: &mut Vec<u8>) {
        self.close(out);
        let reason = stop_reason(self.finish_reason.as_deref(), end);
        let delta = json!({"stop_reason": reason, "stop_sequence": null});
        event("message_delta", &json!({"type": "message_delta", "delta": delta, "usage": usage(end)}), out);
        event("message_stop", &json!({"type": "message_stop"}), out);
    }
}

impl Render for Events {
    fn entry(&mut self, entry: &Entry, out: &mut Vec<u8>) {
        match entry {
            Entry::Started(_) | Entry::Resumed(_) => {}
            Entry::Chunk { chunk, .. } => {
                self.start(out);
                self.chunk(chunk.raw(), out);
            }
            Entry::End(end) => {
                self.start(out);
                self.end(end, out);
            }
            Entry::Error(error) => event("error", &reshape::error(&from_stream(error)), out),
        }
    }
}

fn event(name: &str, data: &impl Serialize, out: &mut Vec<u8>) {
    out.extend_from_slice(&sse::frame(None, name, data));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ORCHD-MESSAGES-001
    #[test]
    fn thinking_text_and_calls_are_blocks_of_their_own() {
        let deltas = [
            json!({"role": "assistant", "content": null}),
            json!({"reasoning_content": "hm"}),
            json!({"content": "Hel"}),
            json!({"content": "lo"}),
            json!({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": "{\"x\""}}]}),
            json!({"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]}),
            json!({"tool_calls": [{"index": 1, "id": "b", "function": {"name": "g", "arguments": "{}"}}]}),
        ];
        let shown = |thinking: bool| {
            let mut events = Events::new(Reply { id: "m".to_owned(), model: "p".to_owned(), thinking });
            let mut out = Vec::new();
            events.start(&mut out);
            for delta in &deltas {
                let raw = json!({"choices": [{"delta": delta, "finish_reason": null}]}).to_string();
                events.chunk(&raw, &mut out);
            }
            let text = String::from_utf8(out).unwrap();
            let data: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
            for data in &data {
                let event = serde_json::from_str::<wire::streams::MessagesEvent>(data);
                assert!(event.is_ok(), "{data} is not what the contract says: {event:?}");
            }
            data.iter().map(|data| serde_json::from_str::<Value>(data).unwrap()).collect::<Vec<_>>()
        };
        let kinds: Vec<String> = shown(true)
            .iter()
            .filter(|event| event["type"] == "content_block_start")
            .map(|event| format!("{}:{}", event["index"], event["content_block"]["type"].as_str().unwrap()))
            .collect();
        assert_eq!(kinds, ["0:thinking", "1:text", "2:tool_use", "3:tool_use"]);
        let without = shown(false);
        assert!(!without.iter().any(|event| event.to_string().contains("thinking")), "{without:?}");
        let json: String = without
            .iter()
            .filter(|e| e["index"] == 1)
            .filter_map(|e| e["delta"]["partial_json"].as_str())
            .collect();
        assert_eq!(json, "{\"x\":1}");
    }
}
