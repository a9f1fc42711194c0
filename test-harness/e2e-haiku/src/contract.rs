//! What a daemon answers, held against the committed contract: every answer that a suite receives goes
//! through here, so that a shape nobody wrote down fails the scenario that met it.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::{Context, Result, bail, ensure};
use jsonschema::Validator;
use serde_json::{Value, json};

const ORCHESTRATORD: &str = include_str!("../../../contracts/openapi/orchestratord.json");
const POOL_MANAGERD: &str = include_str!("../../../contracts/openapi/pool-managerd.json");

/// A daemon's committed OpenAPI document.
#[derive(Debug)]
pub struct Contract {
    document: Value,
    /// Compiled schemas, by where they stand in the document.
    validators: Mutex<HashMap<String, &'static Validator>>,
}

impl Contract {
    /// orchestratord's, read once for each process.
    pub fn orchestratord() -> Result<&'static Self> {
        static CONTRACT: OnceLock<Option<Contract>> = OnceLock::new();
        let read = CONTRACT.get_or_init(|| Self::read(ORCHESTRATORD));
        read.as_ref().context("contracts/openapi/orchestratord.json is not JSON")
    }

    /// pool-managerd's, read once for each process.
    pub fn pool_managerd() -> Result<&'static Self> {
        static CONTRACT: OnceLock<Option<Contract>> = OnceLock::new();
        let read = CONTRACT.get_or_init(|| Self::read(POOL_MANAGERD));
        read.as_ref().context("contracts/openapi/pool-managerd.json is not JSON")
    }

    fn read(text: &str) -> Option<Self> {
        Some(Self { document: serde_json::from_str(text).ok()?, validators: Mutex::default() })
    }

    /// Checks that a status is documented for the operation, or is a refusal of a path or method that is
    /// not in the document. A preflight is the browser's question, not an operation.
    pub fn check_status(&self, method: &str, path: &str, status: u16) -> Result<()> {
        if method == "OPTIONS" {
            return Ok(());
        }
        let asked = || format!("{method} {path} answered {status}");
        match self.operation(method, path) {
            None => ensure!(status >= 400, "{} and is not in the contract", asked()),
            Some(operation) => ensure!(
                operation["responses"][status.to_string()].is_object(),
                "{} and the contract does not know that",
                asked()
            ),
        }
        Ok(())
    }

    /// Checks that a status is documented with such a body, or without one where there is none.
    pub fn check_media(&self, method: &str, path: &str, status: u16, media: &str) -> Result<()> {
        self.check_status(method, path, status)?;
        let Some(operation) = self.operation(method, path) else { return Ok(()) };
        let content = operation["responses"][status.to_string()]["content"].as_object();
        let essence = media.split(';').next().unwrap_or(media).trim();
        let known = content.is_none_or(|content| content.is_empty() || content.contains_key(essence));
        ensure!(
            known,
            "{method} {path} answered {status} with {media:?} and the contract does not know that"
        );
        Ok(())
    }

    /// Checks a whole answer: its status is documented for the operation, and its body, or each frame
    /// of it, is what the document says. What is not in the document must be an error in the envelope.
    pub fn check(&self, method: &str, path: &str, status: u16, media: &str, body: &str) -> Result<()> {
        self.check_media(method, path, status, media)?;
        let Some(operation) = self.operation(method, path) else {
            if method == "OPTIONS" {
                return Ok(());
            }
            let envelope = json!({"$ref": "#/components/schemas/ErrorEnvelope"});
            return self.valid(&envelope, &parsed(body)?).context("an undocumented path");
        };
        let asked = || format!("{method} {path} answered {status}");
        let response = &operation["responses"][status.to_string()];
        let content = &response["content"];
        if media.starts_with("text/event-stream") {
            let schema = &content["text/event-stream"]["schema"];
            return frames(body).try_for_each(|frame| self.frame(schema, frame)).with_context(asked);
        }
        let schema = &content["application/json"]["schema"];
        match schema.is_object() {
            true => self.valid(schema, &parsed(body)?).with_context(asked),
            // Plain text has no shape.
            false => Ok(()),
        }
    }

    /// How a stream names its events and says its end, which OpenAPI has no words for; the descriptions of
    /// the schemas have.
    fn frame(&self, schema: &Value, frame: &str) -> Result<()> {
        let field = |name: &str| frame.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let reference = schema["$ref"].as_str().context("a stream that the contract does not know")?;
        match (reference.rsplit('/').next().unwrap_or_default(), field("event"), field("data")) {
            (_, None, None) => {
                ensure!(frame.lines().all(|line| line.starts_with(':')), "neither data nor comment: {frame}");
                Ok(())
            }
            ("TaskEvent" | "DashboardEvent", Some(event), Some(data)) => {
                self.valid(schema, &json!({"event": event, "data": parsed(data)?}))
            }
            ("ChatCompletionFrame" | "TextCompletionFrame", None, Some("[DONE]")) => Ok(()),
            ("ChatCompletionFrame" | "TextCompletionFrame", None, Some(data)) => {
                self.valid(schema, &parsed(data)?)
            }
            ("MessagesEvent" | "ResponsesEvent", Some(event), Some(data)) => {
                let data = parsed(data)?;
                ensure!(data["type"] == event, "an event {event} that says it is {}", data["type"]);
                self.valid(schema, &data)
            }
            ("LogLine", Some("log"), Some(data)) => self.valid(schema, &parsed(data)?),
            (schema, event, _) => {
                bail!("a stream of {schema} has no frame as the one named {event:?}: {frame}")
            }
        }
    }

    fn operation(&self, method: &str, path: &str) -> Option<&Value> {
        let path = path.split('?').next().unwrap_or(path);
        let paths = self.document["paths"].as_object()?;
        let matching = paths.iter().filter(|(template, _)| matches(template, path));
        // A path without parameters is nearer than one with.
        let (_, item) = matching.min_by_key(|(template, _)| template.matches('{').count())?;
        item.get(method.to_lowercase())
    }

    fn valid(&self, schema: &Value, value: &Value) -> Result<()> {
        let problems: Vec<String> = self
            .validator(schema)?
            .iter_errors(value)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        ensure!(problems.is_empty(), "{value:#} is not what the contract says:\n{}", problems.join("\n"));
        Ok(())
    }

    fn validator(&self, schema: &Value) -> Result<&'static Validator> {
        let mut validators = self.validators.lock().unwrap_or_else(PoisonError::into_inner);
        let key = schema.to_string();
        if let Some(validator) = validators.get(&key) {
            return Ok(validator);
        }
        let mut whole = schema.clone();
        whole["components"] = self.document["components"].clone();
        let validator = jsonschema::validator_for(&whole).with_context(|| format!("compiling {key}"))?;
        // As many as the contract has schemas, once for each process.
        let validator: &'static Validator = Box::leak(Box::new(validator));
        validators.insert(key, validator);
        Ok(validator)
    }
}

fn parsed(text: &str) -> Result<Value> {
    serde_json::from_str(text).with_context(|| format!("not JSON: {text}"))
}

fn frames(body: &str) -> impl Iterator<Item = &str> {
    body.split_terminator("\n\n")
}

fn matches(template: &str, path: &str) -> bool {
    let (template, path) = (template.split('/'), path.split('/'));
    template.clone().count() == path.clone().count()
        && template.zip(path).all(|(expected, found)| expected.starts_with('{') || expected == found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: &str, path: &str, status: u16, body: &str) -> Result<()> {
        Contract::orchestratord()?.check(method, path, status, "application/json", body)
    }

    #[test]
    fn what_the_document_says_passes_and_anything_else_does_not() {
        let unknown = r#"{"error":{"code":"NOT_FOUND","message":"m","type":"t","retriable":false}}"#;
        check("GET", "/v2/tasks/x", 404, unknown).unwrap();
        check("GET", "/v2/nothing", 404, unknown).unwrap();
        assert!(check("GET", "/v2/tasks/x", 404, r#"{"error":"no"}"#).is_err(), "not the envelope");
        assert!(check("GET", "/v2/tasks/x", 418, unknown).is_err(), "an undocumented status");
        assert!(check("GET", "/v2/nothing", 200, "{}").is_err(), "an undocumented path");
        assert!(check("GET", "/v2/tasks/x", 200, "{}").is_err(), "a view without its fields");
    }

    #[test]
    fn the_other_daemon_has_its_own_contract() {
        let check = |status, body: &str| {
            let contract = Contract::pool_managerd().unwrap();
            contract.check("POST", "/v2/pools/p/stop", status, "application/json", body)
        };
        assert!(check(200, "{}").is_err(), "a stop is accepted, not done");
        assert!(check(202, "{}").is_err(), "an order without its operation");
        let logs = |data: &str| {
            let frame = format!("event: log\ndata: {data}\n\n");
            let contract = Contract::pool_managerd().unwrap();
            contract.check("GET", "/v2/pools/p/logs", 200, "text/event-stream", &frame)
        };
        logs(r#"{"replica_id":"r0","line":"x"}"#).unwrap();
        assert!(logs(r#"{"line":"x"}"#).is_err());
    }

    #[test]
    fn each_frame_of_a_stream_is_checked() {
        let stream = |body: &str| {
            let contract = Contract::orchestratord().unwrap();
            contract.check("GET", "/v2/tasks/x/events", 200, "text/event-stream", body)
        };
        stream(": keepalive\n\nid: 1\nevent: token\ndata: {\"t\":\"a\",\"i\":0}\n\n").unwrap();
        assert!(stream("event: token\ndata: {\"t\":1,\"i\":0}\n\n").is_err());
        assert!(stream("event: surprise\ndata: {}\n\n").is_err());
        assert!(stream("event: token\n\n").is_err());
    }

    /// PROOF-007
    #[test]
    fn each_frame_of_the_streams_for_clients_of_others_is_checked() {
        let check = |path: &str, frame: &str| {
            let contract = Contract::orchestratord().unwrap();
            contract.check("POST", path, 200, "text/event-stream", &format!("{frame}\n\n"))
        };
        let chat = |frame: &str| check("/v1/chat/completions", frame);
        let chunk = r#"{"id":"chatcmpl-t","object":"chat.completion.chunk","created":1,"model":"m","choices":
            [{"index":0,"delta":{"role":"assistant","content":null},"finish_reason":null}]}"#;
        let chunk = chunk.replace('\n', "");
        chat(&format!("data: {chunk}")).unwrap();
        chat("data: [DONE]").unwrap();
        chat(r#"data: {"error":{"code":"ENGINE_LOST","message":"m","type":"t","retriable":true}}"#).unwrap();
        assert!(chat("data: [OVER]").is_err());
        assert!(chat(&format!("event: chunk\ndata: {chunk}")).is_err(), "SDKs stumble over a name");
        for (without, with) in [
            ("\"id\":\"chatcmpl-t\",", ""),
            ("chat.completion.chunk", "chat.completion"),
            ("\"created\":1", "\"created\":null"),
            ("\"delta\"", "\"message\""),
            ("\"content\":null", "\"content\":7"),
        ] {
            assert!(
                chunk.contains(without) && chat(&format!("data: {}", chunk.replace(without, with))).is_err()
            );
        }

        let text = |frame: &str| check("/v1/completions", frame);
        let choice = r#"[{"index":0,"text":"a","logprobs":null,"finish_reason":null}]"#;
        let piece = |choices: &str| {
            let head = r#""id":"cmpl-t","object":"text_completion","created":1,"model":"m""#;
            format!("data: {{{head},\"choices\":{choices}}}")
        };
        text(&piece(choice)).unwrap();
        text("data: [DONE]").unwrap();
        assert!(text(&piece(&choice.replace("text", "delta"))).is_err());
        assert!(text(&format!("data: {chunk}")).is_err(), "a chat's");

        let typed =
            |path: &str, event: &str, data: &str| check(path, &format!("event: {event}\ndata: {data}"));
        let message = |event: &str, data: &str| typed("/v1/messages", event, data);
        let delta = r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a"}}"#;
        message("content_block_delta", delta).unwrap();
        message("message_stop", r#"{"type":"message_stop"}"#).unwrap();
        assert!(message("content_block_stop", delta).is_err(), "another name");
        assert!(message("content_block_delta", &delta.replace("text_delta", "delta")).is_err());
        assert!(message("ping", r#"{"type":"ping"}"#).is_err(), "nobody wrote it down");
        assert!(check("/v1/messages", &format!("data: {delta}")).is_err(), "no name");
        assert!(check("/v1/messages", "data: [DONE]").is_err());

        let response = |event: &str, data: &str| typed("/v1/responses", event, data);
        let delta = r#"{"type":"response.output_text.delta","sequence_number":4,"item_id":"msg_t_0",
            "output_index":0,"content_index":0,"delta":"a"}"#;
        let delta = delta.replace('\n', "");
        response("response.output_text.delta", &delta).unwrap();
        assert!(response("response.output_text.done", &delta).is_err(), "another name");
        assert!(
            response("response.output_text.delta", &delta.replace("\"sequence_number\":4,", "")).is_err()
        );
        assert!(
            response("response.completed", r#"{"type":"response.completed","sequence_number":1}"#).is_err()
        );
    }
}
