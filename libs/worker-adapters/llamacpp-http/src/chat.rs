//! The frames of `/v1/chat/completions`. What a chunk says is passed on as it came, without the names around
//! it; of the one with the usage the numbers become [`Finished`]: the edge writes its own for those who asked.

use adapter_host::{Finished, StreamFault};
use serde::Deserialize;
use serde_json::value::RawValue;
use wire::event::FinishReason;
use wire::{EngineChunk, RawJson};

use crate::stream::{Read, Step, malformed};

#[derive(Default)]
pub(crate) struct Chat {
    reason: Option<FinishReason>,
}

#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(borrow, default)]
    choices: Option<&'a RawValue>,
    #[serde(borrow, default)]
    system_fingerprint: Option<&'a RawValue>,
    #[serde(borrow, default)]
    timings: Option<&'a RawValue>,
    #[serde(default)]
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    delta: Delta,
    #[serde(default)]
    finish_reason: Option<String>,
    #[serde(default)]
    logprobs: Option<Logprobs>,
}

#[derive(Default, Deserialize)]
struct Delta {
    #[serde(default)]
    content: Option<String>,
}

#[derive(Deserialize)]
struct Logprobs {
    #[serde(default)]
    content: Option<Vec<Logprob>>,
}

#[derive(Deserialize)]
struct Logprob {
    /// llama-server's extension: absent elsewhere.
    #[serde(default)]
    id: Option<u32>,
}

#[derive(Deserialize)]
struct Usage {
    prompt_tokens: u64,
    completion_tokens: u64,
}

impl Frame<'_> {
    fn choice(&self) -> Result<Option<Choice>, StreamFault> {
        let Some(choices) = self.choices else { return Ok(None) };
        let choices: Vec<Choice> = serde_json::from_str(choices.get()).map_err(|error| malformed(&error))?;
        Ok(choices.into_iter().next())
    }

    /// What of it its reader is shown: all but the names that the edge has its own for.
    fn shown(&self) -> RawJson {
        RawJson::object([
            ("choices", self.choices.map(RawValue::get)),
            ("system_fingerprint", self.system_fingerprint.map(RawValue::get)),
            ("timings", self.timings.map(RawValue::get)),
        ])
    }
}

impl Read for Chat {
    fn read(&mut self, data: &str) -> Result<Step, StreamFault> {
        if data == "[DONE]" {
            // With its usage the stream would have been over before.
            return Err(StreamFault::Protocol(
                "it was done without a finish reason or its counts".to_owned(),
            ));
        }
        let frame: Frame<'_> = serde_json::from_str(data).map_err(|error| malformed(&error))?;
        let mut step = Step::default();
        if let Some(choice) = frame.choice()? {
            match choice.finish_reason.as_deref() {
                None => {}
                Some("length") => self.reason = Some(FinishReason::Length),
                Some(_) => self.reason = Some(FinishReason::Stop),
            }
            let finishes = choice.finish_reason.is_some();
            let tokens = choice.logprobs.and_then(|logprobs| logprobs.content).unwrap_or_default();
            let tokens = tokens.into_iter().filter_map(|token| token.id).collect();
            let text = choice.delta.content.unwrap_or_default();
            step.chunk = Some(EngineChunk { text, tokens, unnamed: 0, finishes, raw: Some(frame.shown()) });
        }
        if let (Some(usage), Some(reason)) = (frame.usage, self.reason) {
            let (tokens_in, tokens_out) = (usage.prompt_tokens, usage.completion_tokens);
            step.finished = Some(Finished { reason, tokens_in, tokens_out, sampling: None });
        }
        Ok(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tool_deltas_and_reasoning_pass_through_without_text() {
        let choices = r#"[{"index":0, "delta":{"tool_calls":[{"index":0,"function":{"name":"f"}}]}}]"#;
        let data = format!(
            r#"{{"choices":{choices},"id":"theirs","timings":{{"x": 1}},"model":"theirs","__verbose":{{}}}}"#
        );
        let chunk = Chat::default().read(&data).unwrap().chunk.unwrap();
        let shown = format!(r#"{{"choices":{choices},"timings":{{"x": 1}}}}"#);
        assert_eq!((chunk.text.as_str(), chunk.raw(), chunk.finishes), ("", shown.as_str(), false));
    }

    #[test]
    fn the_counts_come_only_after_the_reason() {
        let usage = r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":5}}"#;
        let mut chat = Chat::default();
        assert!(chat.read(usage).unwrap().finished.is_none());
        let step = chat.read(r#"{"choices":[{"delta":{},"finish_reason":"tool_calls"}]}"#).unwrap();
        assert!(step.chunk.is_some_and(|chunk| chunk.finishes) && step.finished.is_none());
        let step = chat.read(usage).unwrap();
        let finished = step.finished.unwrap();
        assert!(step.chunk.is_none());
        assert_eq!((finished.reason, finished.tokens_in, finished.tokens_out), (FinishReason::Stop, 3, 5));
    }

    #[test]
    fn done_without_counts_breaks_the_protocol() {
        assert!(matches!(Chat::default().read("[DONE]"), Err(StreamFault::Protocol(_))));
    }
}
