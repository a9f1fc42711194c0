//! The task log as items of a response: events of a stream, or the response that the last of them holds.

use serde_json::{Value, json};
use task_log::Entry;
use wire::TaskId;
use wire::event::{End, FinishReason, StreamError};
use wire::responses::{ResponsesAnswer, ResponsesRequest, ResponsesUsage};

use crate::http::door::{Begun, Render, without_end};
use crate::http::error::{ApiError, from_stream, in_words};
use crate::http::{sse, state};

/// The whole answer.
pub(super) async fn whole(mut events: Events, mut begun: Begun) -> Result<ResponsesAnswer, ApiError> {
    let mut unsent = Vec::new();
    while let Some(entry) = begun.next().await {
        match entry.as_ref() {
            Entry::Error(error) => return Err(from_stream(error).into()),
            Entry::End(end) => {
                events.close(&mut unsent);
                return Ok(events.ended(end));
            }
            _ => events.entry(&entry, &mut unsent),
        }
        unsent.clear();
    }
    Err(without_end())
}

/// What an item of the output is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Reasoning,
    Text,
    /// By its index among the calls.
    Call(u64),
}

/// The item that is being said.
struct Item {
    kind: Kind,
    id: String,
    /// Text, or arguments.
    said: String,
    /// Of a call: its id and the function's name.
    call: (String, String),
}

impl Item {
    fn json(&self, status: &str) -> Value {
        let Self { id, said, call: (call_id, name), .. } = self;
        match self.kind {
            Kind::Reasoning => {
                let content = if said.is_empty() { json!([]) } else { json!([self.part()]) };
                json!({"type": "reasoning", "id": id, "status": status, "summary": [], "content": content})
            }
            Kind::Text => {
                let content = if said.is_empty() { json!([]) } else { json!([self.part()]) };
                json!({"type": "message", "id": id, "status": status, "role": "assistant", "content": content})
            }
            Kind::Call(_) => json!({
                "type": "function_call", "id": id, "status": status, "call_id": call_id, "name": name,
                "arguments": said,
            }),
        }
    }

    fn part(&self) -> Value {
        match self.kind {
            Kind::Reasoning => json!({"type": "reasoning_text", "text": self.said}),
            Kind::Text | Kind::Call(_) => {
                json!({"type": "output_text", "text": self.said, "annotations": []})
            }
        }
    }

    /// What its events are called, and the field that holds all of it in the last.
    fn names(&self) -> (&'static str, &'static str) {
        match self.kind {
            Kind::Reasoning => ("response.reasoning_text", "text"),
            Kind::Text => ("response.output_text", "text"),
            Kind::Call(_) => ("response.function_call_arguments", "arguments"),
        }
    }
}

/// Where the rendering stands.
pub(super) struct Events {
    answer: ResponsesAnswer,
    /// Numbers the events.
    sequence: u64,
    open: Option<Item>,
}

impl Events {
    pub(super) fn new(id: &TaskId, request: ResponsesRequest) -> Self {
        let answer = ResponsesAnswer {
            id: format!("resp_{id}"),
            object: "response".to_owned(),
            created_at: state::unix_seconds(),
            status: "in_progress".to_owned(),
            error: None,
            incomplete_details: None,
            model: request.model,
            output: Vec::new(),
            usage: None,
            instructions: request.instructions,
            max_output_tokens: request.max_output_tokens,
            temperature: request.temperature,
            top_p: request.top_p,
            tools: request.tools.unwrap_or_default(),
            tool_choice: request.tool_choice.unwrap_or_else(|| json!("auto")),
            parallel_tool_calls: request.parallel_tool_calls.unwrap_or(true),
            text: request.text.unwrap_or_else(|| json!({"format": {"type": "text"}})),
            reasoning: request.reasoning,
            metadata: request.metadata,
            previous_response_id: None,
            store: false,
            truncation: "disabled".to_owned(),
        };
        Self { answer, sequence: 0, open: None }
    }

    fn event(&mut self, kind: &str, mut data: Value, out: &mut Vec<u8>) {
        data["type"] = json!(kind);
        data["sequence_number"] = json!(self.sequence);
        self.sequence += 1;
        out.extend_from_slice(&sse::frame(None, kind, &data));
    }

    fn start(&mut self, out: &mut Vec<u8>) {
        if self.sequence == 0 {
            for kind in ["response.created", "response.in_progress"] {
                self.event(kind, json!({"response": self.answer}), out);
            }
        }
    }

    fn chunk(&mut self, raw: &str, out: &mut Vec<u8>) {
        let Ok(chunk) = serde_json::from_str::<Value>(raw) else { return };
        let delta = &chunk["choices"][0]["delta"];
        let text = |name: &str| delta[name].as_str().filter(|text| !text.is_empty());
        let none = || (String::new(), String::new());
        if let Some(reasoning) = text("reasoning_content") {
            self.say(Kind::Reasoning, none, reasoning, out);
        }
        if let Some(content) = text("content") {
            self.say(Kind::Text, none, content, out);
        }
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            let of = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let names = || (of(&call["id"]), of(&call["function"]["name"]));
            let arguments = call["function"]["arguments"].as_str().unwrap_or_default();
            self.say(Kind::Call(call["index"].as_u64().unwrap_or(0)), names, arguments, out);
        }
    }

    /// Goes on with the item of this kind, or begins it.
    fn say(&mut self, kind: Kind, call: impl FnOnce() -> (String, String), delta: &str, out: &mut Vec<u8>) {
        if self.open.as_ref().is_none_or(|open| open.kind != kind) {
            self.close(out);
            let index = self.answer.output.len();
            let prefix = match kind {
                Kind::Reasoning => "rs",
                Kind::Text => "msg",
                Kind::Call(_) => "fc",
            };
            let id = format!("{prefix}_{}_{index}", self.answer.id.trim_start_matches("resp_"));
            let item = Item { kind, id, said: String::new(), call: call() };
            let added = json!({"output_index": index, "item": item.json("in_progress")});
            self.event("response.output_item.added", added, out);
            if !matches!(kind, Kind::Call(_)) {
                let part = json!({
                    "item_id": item.id, "output_index": index, "content_index": 0, "part": item.part(),
                });
                self.event("response.content_part.added", part, out);
            }
            self.open = Some(item);
        }
        let index = self.answer.output.len();
        let Some(open) = self.open.as_mut().filter(|_| !delta.is_empty()) else { return };
        open.said.push_str(delta);
        let mut data = json!({"item_id": open.id, "output_index": index, "delta": delta});
        if !matches!(kind, Kind::Call(_)) {
            data["content_index"] = json!(0);
        }
        let kind = format!("{}.delta", open.names().0);
        self.event(&kind, data, out);
    }

    /// Ends the item that is being said.
    fn close(&mut self, out: &mut Vec<u8>) {
        let Some(item) = self.open.take() else { return };
        let index = self.answer.output.len();
        let (name, all) = item.names();
        let mut done = json!({"item_id": item.id, "output_index": index});
        done[all] = json!(item.said);
        if matches!(item.kind, Kind::Call(_)) {
            done["name"] = json!(item.call.1);
            self.event(&format!("{name}.done"), done, out);
        } else {
            done["content_index"] = json!(0);
            self.event(&format!("{name}.done"), done.clone(), out);
            let part = json!({
                "item_id": item.id, "output_index": index, "content_index": 0, "part": item.part(),
            });
            self.event("response.content_part.done", part, out);
        }
        let item = item.json("completed");
        self.event("response.output_item.done", json!({"output_index": index, "item": item}), out);
        self.answer.output.push(item);
    }

    fn ended(&mut self, end: &End) -> ResponsesAnswer {
        // The protocol has no way to say "unknown", which only a cancelled task's count is.
        let input_tokens = end.tokens_in.unwrap_or(0);
        let (output_tokens, total_tokens) = (end.tokens_out, input_tokens + end.tokens_out);
        self.answer.usage = Some(ResponsesUsage { input_tokens, output_tokens, total_tokens });
        let incomplete = end.finish_reason == FinishReason::Length;
        self.answer.status = if incomplete { "incomplete" } else { "completed" }.to_owned();
        self.answer.incomplete_details = incomplete.then(|| json!({"reason": "max_output_tokens"}));
        self.answer.clone()
    }

    fn failed(&mut self, error: &StreamError, out: &mut Vec<u8>) {
        let error = from_stream(error);
        self.answer.status = "failed".to_owned();
        self.answer.error = Some(json!({"code": error.code, "message": in_words(&error)}));
        self.event("response.failed", json!({"response": self.answer}), out);
    }
}

impl Render for Events {
    fn entry(&mut self, entry: &Entry, out: &mut Vec<u8>) {
        self.start(out);
        match entry {
            Entry::Started(_) | Entry::Resumed(_) => {}
            Entry::Chunk { chunk, .. } => self.chunk(chunk.raw(), out),
            Entry::End(end) => {
                self.close(out);
                let answer = self.ended(end);
                let kind = format!("response.{}", answer.status);
                self.event(&kind, json!({"response": answer}), out);
            }
            Entry::Error(error) => self.failed(error, out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ORCHD-RESPONSES-001
    #[test]
    fn a_failure_says_what_to_do_behind_what_happened() {
        let id = TaskId::try_new("t").unwrap();
        let mut events = Events::new(&id, ResponsesRequest::default());
        let mut out = Vec::new();
        let error = StreamError {
            code: wire::ErrorCode::ReaderTooSlow,
            message: "the rest is gone".to_owned(),
            retriable: true,
            retry_after_ms: None,
            hint: Some("read faster".to_owned()),
            tokens_sent: 0,
        };
        events.entry(&Entry::Error(error), &mut out);
        let expected = json!({"code": "READER_TOO_SLOW", "message": "the rest is gone; read faster"});
        assert_eq!(json!(events.answer.error), expected);
    }

    /// ORCHD-RESPONSES-001
    #[test]
    fn reasoning_text_and_calls_are_items_of_their_own() {
        let id = TaskId::try_new("t").unwrap();
        let mut events = Events::new(&id, ResponsesRequest::default());
        let mut out = Vec::new();
        events.start(&mut out);
        for delta in [
            json!({"role": "assistant", "content": null}),
            json!({"reasoning_content": "hm"}),
            json!({"content": "Hel"}),
            json!({"content": "lo"}),
            json!({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}}]}),
            json!({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}),
            json!({"tool_calls": [{"index": 1, "id": "b", "function": {"name": "g", "arguments": "{}"}}]}),
        ] {
            events.chunk(&json!({"choices": [{"delta": delta}]}).to_string(), &mut out);
        }
        events.close(&mut out);
        let call = |n: u8, call: &str, name: &str| {
            json!({"type": "function_call", "id": format!("fc_t_{n}"), "status": "completed", "call_id": call,
                "name": name, "arguments": "{}"})
        };
        assert_eq!(
            json!(events.answer.output),
            json!([
                {"type": "reasoning", "id": "rs_t_0", "status": "completed", "summary": [],
                    "content": [{"type": "reasoning_text", "text": "hm"}]},
                {"type": "message", "id": "msg_t_1", "status": "completed", "role": "assistant",
                    "content": [{"type": "output_text", "text": "Hello", "annotations": []}]},
                call(2, "a", "f"),
                call(3, "b", "g"),
            ])
        );
        let text = String::from_utf8(out).unwrap();
        let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
        let data: Vec<Value> = data.map(|data| serde_json::from_str(data).unwrap()).collect();
        for event in &data {
            let known = serde_json::from_value::<wire::streams::ResponsesEvent>(event.clone());
            assert!(known.is_ok(), "{event} is not what the contract says: {known:?}");
        }
        assert!(data.iter().enumerate().all(|(n, event)| event["sequence_number"] == n), "{text}");
        let names: Vec<&str> = data.iter().filter_map(|event| event["type"].as_str()).collect();
        let item = |delta: &'static str, part: bool| {
            let part = |name| part.then_some(name);
            let names = [
                Some("response.output_item.added"),
                part("response.content_part.added"),
                Some(delta),
                Some("done"),
                part("response.content_part.done"),
                Some("response.output_item.done"),
            ];
            names.into_iter().flatten()
        };
        let mut expected = vec!["response.created", "response.in_progress"];
        expected.extend(item("response.reasoning_text.delta", true));
        expected.extend(item("response.output_text.delta", true));
        expected.extend(item("response.function_call_arguments.delta", false));
        expected.extend(item("response.function_call_arguments.delta", false));
        let shown: Vec<&str> = names
            .iter()
            .map(|name| match *name {
                "response.reasoning_text.done" | "response.output_text.done" => "done",
                "response.function_call_arguments.done" => "done",
                name => name,
            })
            .collect();
        // The message came in two pieces.
        let mut once = shown.clone();
        once.dedup();
        assert_eq!(once, expected);
        for event in &data {
            if let Some(index) = event["output_index"].as_u64() {
                let id = event["item_id"].as_str().or_else(|| event["item"]["id"].as_str()).unwrap();
                assert!(id.ends_with(&format!("_t_{index}")), "{event}");
            }
        }
    }
}
