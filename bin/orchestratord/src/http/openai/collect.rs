//! The answer to a request that does not stream: the engine's deltas joined into one message.

use serde_json::{Map, Value, json};
use task_log::Entry;
use wire::openai::ChatCompletion;

use super::render::{Reply, finish_reason, usage};
use crate::http::door::{Begun, without_end};
use crate::http::error::{ApiError, from_stream};

pub(super) async fn whole(reply: &Reply, mut begun: Begun) -> Result<ChatCompletion, ApiError> {
    let mut joined = Joined::default();
    while let Some(entry) = begun.next().await {
        match entry.as_ref() {
            Entry::Started(_) | Entry::Resumed(_) => {}
            Entry::Chunk { chunk, .. } => {
                joined.chunk(chunk.raw());
            }
            Entry::End(end) => {
                return Ok(ChatCompletion {
                    id: reply.id.clone(),
                    object: "chat.completion".to_owned(),
                    created: reply.created,
                    model: reply.model.clone(),
                    choices: vec![joined.choice(finish_reason(end))],
                    usage: usage(end),
                });
            }
            Entry::Error(error) => return Err(from_stream(error).into()),
        }
    }
    Err(without_end())
}

/// A message being put together.
#[derive(Default)]
pub(in crate::http) struct Joined {
    message: Map<String, Value>,
    logprobs: Vec<Value>,
    finish_reason: Option<Value>,
}

impl Joined {
    /// Takes in an engine's chunk; one without choices says nothing.
    pub(in crate::http) fn chunk(&mut self, raw: &str) {
        let Ok(mut value) = serde_json::from_str::<Value>(raw) else { return };
        if let Some(choice) = value.pointer_mut("/choices/0") {
            self.add(choice.take());
        }
    }

    fn add(&mut self, mut choice: Value) {
        if let Value::Object(delta) = choice["delta"].take() {
            merge(&mut self.message, delta);
        }
        if let Value::Array(logprobs) = choice["logprobs"]["content"].take() {
            self.logprobs.extend(logprobs);
        }
        if !choice["finish_reason"].is_null() {
            self.finish_reason = Some(choice["finish_reason"].take());
        }
    }

    pub(in crate::http) fn choice(mut self, fallback: &str) -> Value {
        self.message.entry("role").or_insert_with(|| json!("assistant"));
        self.message.entry("content").or_insert(Value::Null);
        if let Some(Value::Array(calls)) = self.message.get_mut("tool_calls") {
            for call in calls.iter_mut().filter_map(Value::as_object_mut) {
                call.remove("index");
            }
        }
        let finish_reason = self.finish_reason.unwrap_or_else(|| json!(fallback));
        let logprobs = if self.logprobs.is_empty() { Value::Null } else { json!({"content": self.logprobs}) };
        json!({"index": 0, "message": self.message, "logprobs": logprobs, "finish_reason": finish_reason})
    }
}

/// Joins a delta into a message: text is appended, list items are matched by their `index`, names
/// and ids stay as they first came.
fn merge(into: &mut Map<String, Value>, delta: Map<String, Value>) {
    for (key, value) in delta {
        match (into.get_mut(&key), value) {
            (_, Value::Null) => {}
            (Some(Value::String(_)), Value::String(_)) if matches!(key.as_str(), "role" | "id" | "type") => {}
            (Some(Value::String(text)), Value::String(more)) => text.push_str(&more),
            (Some(Value::Object(object)), Value::Object(more)) => merge(object, more),
            (Some(Value::Array(items)), Value::Array(more)) => merge_items(items, more),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

fn merge_items(items: &mut Vec<Value>, more: Vec<Value>) {
    for item in more {
        let index = item["index"].clone();
        let known = items.iter_mut().find(|known| !index.is_null() && known["index"] == index);
        match (known, item) {
            (Some(Value::Object(known)), Value::Object(item)) => {
                let item = item.into_iter().filter(|(key, _)| key != "index").collect();
                merge(known, item);
            }
            (_, item) => items.push(item),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deltas_join_into_the_message_they_came_from() {
        let mut joined = Joined::default();
        for delta in [
            json!({"role": "assistant", "content": null}),
            json!({"reasoning_content": "think"}),
            json!({"content": "Hel"}),
            json!({"content": "lo"}),
            json!({"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": "{\"x\""}}]}),
            json!({"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]}),
            json!({"tool_calls": [{"index": 1, "id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}}]}),
        ] {
            joined.add(json!({"delta": delta, "finish_reason": null}));
        }
        joined.add(json!({"delta": {}, "finish_reason": "tool_calls"}));
        let choice = joined.choice("stop");
        assert_eq!(choice["message"]["content"], "Hello");
        assert_eq!(choice["message"]["reasoning_content"], "think");
        assert_eq!(choice["message"]["tool_calls"][0]["function"]["arguments"], "{\"x\":1}");
        assert_eq!(choice["message"]["tool_calls"][1]["function"]["name"], "g");
        assert_eq!(choice["message"]["tool_calls"].as_array().unwrap().len(), 2);
        assert_eq!(choice["finish_reason"], "tool_calls");
    }
}
