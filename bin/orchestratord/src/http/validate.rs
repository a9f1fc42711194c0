//! Turning checked client requests into what dispatch and the engine take. Numbers out of range are
//! refused with the field's name, never clamped in silence.

use std::time::Duration;

use adapter_host::{
    CompletionRequest, EmbeddingRequest, EngineRequest, Input, Prompt, RerankRequest, Sampling, SoFar,
};
use serde_json::Value;
use wire::TaskRequest;
use wire::config::PoolKind;
use wire::task::{Message, Workload};

use super::error::ApiError;

/// A deadline or grace longer than this is a mistake in units.
const MAX_DURATION_MS: u64 = 7 * 24 * 3600 * 1000;
const MAX_STOPS: usize = 16;
const MAX_STOP_BYTES: usize = 256;
/// Texts in one task, as OpenAI has it.
pub(super) const MAX_INPUTS: usize = 2_048;
const MAX_TOKENS: u32 = 16_777_216;

/// Checks a `/v2` request and builds the engine's.
pub(super) fn engine_request(task: &TaskRequest, cache_prompt: bool) -> Result<EngineRequest, ApiError> {
    if let Some(once) = answered_at_once(task)? {
        return Ok(once);
    }
    let prompt = prompt(task)?;
    let sampling = Sampling {
        max_tokens: max_tokens("max_tokens", task.max_tokens)?,
        seed: task.seed.map(|seed| seed.0),
        temperature: within("temperature", task.temperature, 0.0, 10.0)?,
        top_p: within("top_p", task.top_p, 0.0, 1.0)?,
        top_k: task.top_k,
        min_p: within("min_p", task.min_p, 0.0, 1.0)?,
        repeat_penalty: within("repeat_penalty", task.repeat_penalty, 0.0, 10.0)?,
        presence_penalty: None,
        frequency_penalty: None,
        logit_bias: None,
        stop: stops(task.stop.clone().unwrap_or_default())?,
        grammar: task.grammar.clone(),
        json_schema: task.json_schema.clone(),
    };
    if sampling.grammar.is_some() && sampling.json_schema.is_some() {
        return Err(ApiError::invalid("grammar", "give grammar or json_schema, not both"));
    }
    Ok(EngineRequest::Completion(CompletionRequest {
        prompt,
        sampling,
        cache_prompt,
        so_far: SoFar::Nothing,
    }))
}

/// What kind of pool a request needs.
pub(super) fn kind(request: &EngineRequest) -> PoolKind {
    match request {
        EngineRequest::Completion(_) | EngineRequest::Chat(_) => PoolKind::Chat,
        EngineRequest::Embedding(_) => PoolKind::Embedding,
        EngineRequest::Rerank(_) => PoolKind::Rerank,
    }
}

/// Whether a task asks for text.
pub(super) fn generates(task: &TaskRequest) -> bool {
    task.inputs.is_none() && !matches!(task.workload, Some(Workload::Embedding | Workload::Rerank))
}

/// Vectors or scores; `None` for what generates.
fn answered_at_once(task: &TaskRequest) -> Result<Option<EngineRequest>, ApiError> {
    let ranks = match (task.workload, &task.inputs) {
        (Some(Workload::Embedding), _) => false,
        (Some(Workload::Rerank), _) => true,
        (None, Some(_)) => task.prompt.is_some(),
        (Some(Workload::Completion | Workload::Chat), Some(_)) => {
            return Err(ApiError::invalid("inputs", "inputs are for embedding and rerank"));
        }
        (_, None) => return Ok(None),
    };
    let Some(inputs) = task.inputs.as_ref().filter(|inputs| {
        (1..=MAX_INPUTS).contains(&inputs.len()) && inputs.iter().all(|input| !input.is_empty())
    }) else {
        return Err(ApiError::invalid(
            "inputs",
            format!("inputs must be 1 to {MAX_INPUTS} texts, none empty"),
        ));
    };
    refuse_what_generates(task)?;
    if !ranks {
        if task.prompt.is_some() {
            return Err(ApiError::invalid("prompt", "an embedding takes inputs, not a prompt"));
        }
        let inputs = inputs.iter().cloned().map(Input::Text).collect();
        return Ok(Some(EngineRequest::Embedding(EmbeddingRequest { inputs, base64: false })));
    }
    let Some(query) = task.prompt.clone().filter(|query| !query.is_empty()) else {
        return Err(ApiError::invalid("prompt", "a rerank needs a prompt to rank its inputs by"));
    };
    Ok(Some(EngineRequest::Rerank(RerankRequest { query, documents: inputs.clone(), top_n: None })))
}

/// What shapes a text means nothing where none is generated, and is refused rather than ignored.
fn refuse_what_generates(task: &TaskRequest) -> Result<(), ApiError> {
    let given = [
        ("messages", task.messages.is_some()),
        ("max_tokens", task.max_tokens.is_some()),
        ("seed", task.seed.is_some()),
        ("temperature", task.temperature.is_some()),
        ("top_p", task.top_p.is_some()),
        ("top_k", task.top_k.is_some()),
        ("min_p", task.min_p.is_some()),
        ("repeat_penalty", task.repeat_penalty.is_some()),
        ("stop", task.stop.is_some()),
        ("grammar", task.grammar.is_some()),
        ("json_schema", task.json_schema.is_some()),
    ];
    match given.iter().find(|(_, given)| *given) {
        Some((param, _)) => {
            Err(ApiError::invalid(param, format!("{param} is for tasks that generate; this one does not")))
        }
        None => Ok(()),
    }
}

fn prompt(task: &TaskRequest) -> Result<Prompt, ApiError> {
    match (&task.prompt, &task.messages, task.workload) {
        (Some(_), Some(_), _) => Err(ApiError::invalid("prompt", "give prompt or messages, not both")),
        (None, None, Some(Workload::Chat)) => Err(ApiError::invalid("messages", "a chat needs messages")),
        (None, None, _) => Err(ApiError::invalid("prompt", "the task needs a prompt, messages or inputs")),
        (Some(_), None, Some(Workload::Chat)) => {
            Err(ApiError::invalid("workload", "a chat takes messages; prompt is for completion"))
        }
        (None, Some(_), Some(Workload::Completion)) => {
            Err(ApiError::invalid("workload", "a completion takes prompt; messages are for chat"))
        }
        (Some(text), None, _) => Ok(Prompt::Text(text.clone())),
        (None, Some(messages), _) => {
            check_messages(messages)?;
            Ok(Prompt::Messages(messages.clone()))
        }
    }
}

/// Messages must not be empty, and must not make the engine fetch anything.
pub(super) fn check_messages(messages: &[Message]) -> Result<(), ApiError> {
    if messages.is_empty() {
        return Err(ApiError::invalid("messages", "messages must not be empty"));
    }
    for (i, message) in messages.iter().enumerate() {
        match &message.content {
            Value::Null | Value::String(_) => {}
            Value::Array(parts) => {
                for (j, part) in parts.iter().enumerate() {
                    check_part(part).map_err(|problem| {
                        let at = format!("messages[{i}].content[{j}]");
                        ApiError::invalid(&at, format!("{at} {problem}"))
                    })?;
                }
            }
            _ => {
                let at = format!("messages[{i}].content");
                return Err(ApiError::invalid(&at, format!("{at} must be text, a list of parts, or null")));
            }
        }
    }
    Ok(())
}

/// Only parts that are known to make the engine fetch nothing.
fn check_part(part: &Value) -> Result<(), &'static str> {
    match part["type"].as_str() {
        Some("text") if part["text"].is_string() => Ok(()),
        Some("text") => Err("must have a `text`"),
        Some("image_url") => match part["image_url"]["url"].as_str() {
            Some(url) if url.starts_with("data:") => Ok(()),
            _ => Err(
                "must carry its image as `image_url.url` with a data: URL; a remote one would make the engine fetch it",
            ),
        },
        Some("input_audio") if part["input_audio"]["data"].is_string() => Ok(()),
        Some("input_audio") => Err("must have `input_audio.data`"),
        _ => Err("must have a `type` of text, image_url or input_audio"),
    }
}

pub(super) fn max_tokens(param: &str, value: Option<u32>) -> Result<Option<u32>, ApiError> {
    match value {
        Some(n) if !(1..=MAX_TOKENS).contains(&n) => {
            Err(ApiError::invalid(param, format!("{param} must be 1 to {MAX_TOKENS}")))
        }
        other => Ok(other),
    }
}

pub(super) fn within(param: &str, value: Option<f64>, low: f64, high: f64) -> Result<Option<f64>, ApiError> {
    match value {
        Some(x) if !(low..=high).contains(&x) => {
            Err(ApiError::invalid(param, format!("{param} must be {low} to {high}")))
        }
        other => Ok(other),
    }
}

pub(super) fn stops(stops: Vec<String>) -> Result<Vec<String>, ApiError> {
    let fits = |stop: &String| (1..=MAX_STOP_BYTES).contains(&stop.len());
    if stops.len() > MAX_STOPS || !stops.iter().all(fits) {
        return Err(ApiError::invalid(
            "stop",
            format!("stop takes at most {MAX_STOPS} strings of 1 to {MAX_STOP_BYTES} bytes"),
        ));
    }
    Ok(stops)
}

pub(super) fn duration(param: &str, ms: Option<u64>) -> Result<Option<Duration>, ApiError> {
    match ms {
        Some(ms) if !(1..=MAX_DURATION_MS).contains(&ms) => {
            Err(ApiError::invalid(param, format!("{param} must be 1 to {MAX_DURATION_MS} milliseconds")))
        }
        other => Ok(other.map(Duration::from_millis)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused_param(json: &str) -> Option<String> {
        let task: TaskRequest = serde_json::from_str(json).unwrap();
        engine_request(&task, true).err().and_then(|error| error.0.param)
    }

    #[test]
    fn a_number_out_of_range_is_refused_by_name() {
        for (json, param) in [
            (r#"{"model":"m","prompt":"x","max_tokens":0}"#, "max_tokens"),
            (r#"{"model":"m","prompt":"x","temperature":-1}"#, "temperature"),
            (r#"{"model":"m","prompt":"x","top_p":1.5}"#, "top_p"),
            (r#"{"model":"m","prompt":"x","stop":[""]}"#, "stop"),
            (r#"{"model":"m"}"#, "prompt"),
            (r#"{"model":"m","inputs":[]}"#, "inputs"),
            (r#"{"model":"m","inputs":[""]}"#, "inputs"),
            (r#"{"model":"m","workload":"embedding"}"#, "inputs"),
            (r#"{"model":"m","workload":"embedding","inputs":["a"],"prompt":"x"}"#, "prompt"),
            (r#"{"model":"m","workload":"rerank","inputs":["a"]}"#, "prompt"),
            (r#"{"model":"m","workload":"chat","inputs":["a"]}"#, "inputs"),
            (r#"{"model":"m","inputs":["a"],"temperature":0}"#, "temperature"),
            (r#"{"model":"m","messages":[]}"#, "messages"),
            (r#"{"model":"m","prompt":"x","messages":[{"role":"user","content":"x"}]}"#, "prompt"),
        ] {
            assert_eq!(refused_param(json).as_deref(), Some(param), "{json}");
        }
        assert_eq!(refused_param(r#"{"model":"m","prompt":"x","temperature":0}"#), None);
        assert!(duration("deadline_ms", Some(0)).is_err());
        assert!(duration("deadline_ms", Some(1 << 63)).is_err());
    }

    #[test]
    fn the_engine_is_never_made_to_fetch_anything() {
        for part in [
            r#"{"type":"image_url","image_url":{"url":"http://169.254.169.254/"}}"#,
            r#"{"type":"image_url","image_url":"http://10.0.0.1/x"}"#,
            r#"{"type":"video_url","video_url":{"url":"file:///etc/passwd"}}"#,
            r#"{"type":"text"}"#,
            r#""bare""#,
        ] {
            let json = format!(r#"{{"model":"m","messages":[{{"role":"user","content":[{part}]}}]}}"#);
            assert_eq!(refused_param(&json).as_deref(), Some("messages[0].content[0]"), "{part}");
        }
        let object = r#"{"model":"m","messages":[{"role":"user","content":{"url":"http://x"}}]}"#;
        assert_eq!(refused_param(object).as_deref(), Some("messages[0].content"));
    }
}
