//! The frames of `/completion`. Known limit of the protocol: of a character that several tokens
//! make up, the engine reports only the last token's id. Its running count tells how many are missing.

use adapter_host::{Finished, StreamFault};
use serde::Deserialize;
use serde_json::value::RawValue;
use wire::EngineChunk;
use wire::event::FinishReason;

use crate::stream::{Read, Step, malformed};

#[derive(Default)]
pub(crate) struct Completion {
    /// Tokens so far, by the engine's count.
    counted: u64,
    /// The end, where it is known before the final frame says it.
    known_end: Option<Finished>,
}

#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(default)]
    content: String,
    #[serde(default)]
    tokens: Vec<u32>,
    stop: bool,
    #[serde(default)]
    stop_type: String,
    #[serde(default)]
    tokens_predicted: u64,
    #[serde(default)]
    tokens_evaluated: u64,
    /// A frame that is not final has it exactly when a stop string was found: the server sends it
    /// "usually for the last response", and this is the last one with text.
    #[serde(default)]
    timings: Option<serde::de::IgnoredAny>,
    /// The final frame's. One that reads otherwise than expected is no reason to lose the end.
    #[serde(borrow, default)]
    generation_settings: Option<&'a RawValue>,
}

impl Read for Completion {
    fn read(&mut self, data: &str) -> Result<Step, StreamFault> {
        let frame: Frame<'_> = serde_json::from_str(data).map_err(|error| malformed(&error))?;
        let mut step = Step::default();
        if !frame.stop || !frame.content.is_empty() || !frame.tokens.is_empty() {
            let unnamed = self.unnamed(&frame);
            // Text and ids are all that such a frame says, and every one is kept: its JSON is not.
            let (text, tokens) = (frame.content, frame.tokens);
            step.chunk = Some(EngineChunk { text, tokens, unnamed, ..EngineChunk::default() });
        }
        if !frame.stop && frame.timings.is_some() {
            self.known_end = Some(Finished {
                reason: FinishReason::Stop,
                tokens_in: frame.tokens_evaluated,
                tokens_out: frame.tokens_predicted,
                sampling: None,
            });
        }
        if frame.stop {
            let reason = match frame.stop_type.as_str() {
                "eos" | "word" => FinishReason::Stop,
                "limit" => FinishReason::Length,
                _ => return Err(StreamFault::Protocol("it stopped without saying why".to_owned())),
            };
            step.finished = Some(Finished {
                reason,
                tokens_in: frame.tokens_evaluated,
                tokens_out: frame.tokens_predicted,
                sampling: frame.generation_settings.and_then(|raw| serde_json::from_str(raw.get()).ok()),
            });
        }
        Ok(step)
    }

    fn cut(&mut self) -> Option<Finished> {
        self.known_end.take()
    }
}

impl Completion {
    /// Tokens that the engine has counted since the last frame and does not name in this one.
    fn unnamed(&mut self, frame: &Frame<'_>) -> u32 {
        let named = frame.tokens.len() as u64;
        let new = frame.tokens_predicted.saturating_sub(self.counted);
        self.counted = frame.tokens_predicted.max(self.counted + named);
        // The final frame repeats no token.
        if frame.stop { 0 } else { u32::try_from(new.saturating_sub(named)).unwrap_or(u32::MAX) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_final_frame_may_carry_text_too() {
        let data = r#"{"content":" end","tokens":[7],"stop":true,"stop_type":"eos",
            "tokens_predicted":9,"tokens_evaluated":4}"#;
        let step = Completion::default().read(data).unwrap();
        let chunk = step.chunk.unwrap();
        assert_eq!((chunk.text.as_str(), &chunk.tokens[..]), (" end", &[7][..]));
        assert_eq!(chunk.raw, None, "a token costs a log no more than what is shown of it");
        let finished = step.finished.unwrap();
        assert_eq!((finished.reason, finished.tokens_in, finished.tokens_out), (FinishReason::Stop, 4, 9));
    }

    #[test]
    fn a_frame_without_its_fields_breaks_the_protocol() {
        for bad in
            ["{}", "[]", "nonsense", r#"{"stop":true,"stop_type":"none"}"#, r#"{"stop":false,"tokens":[-1]}"#]
        {
            assert!(matches!(Completion::default().read(bad), Err(StreamFault::Protocol(_))), "{bad}");
        }
    }

    #[test]
    fn a_fault_never_quotes_the_stream() {
        let error = Completion::default().read(r#"{"stop":"my secret words"}"#).unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }

    /// LCPP-009
    #[test]
    fn tokens_that_are_counted_but_not_named_are_told() {
        let mut completion = Completion::default();
        let mut frame = |content: &str, id: u32, predicted: u64| {
            let data = format!(
                r#"{{"content":"{content}","tokens":[{id}],"stop":false,"tokens_predicted":{predicted}}}"#
            );
            completion.read(&data).unwrap().chunk.unwrap().unnamed
        };
        assert_eq!([frame("a", 1, 1), frame("日", 2, 4), frame("b", 3, 5), frame("🍁", 4, 9)], [0, 2, 0, 3]);
        let other = r#"{"content":"a","tokens":[1],"stop":false}"#;
        assert_eq!(
            Completion::default().read(other).unwrap().chunk.unwrap().unnamed,
            0,
            "nothing is counted"
        );
    }

    /// LCPP-010
    #[test]
    fn a_stream_that_breaks_after_its_stop_string_has_ended() {
        let mut completion = Completion::default();
        let plain = r#"{"content":"a","tokens":[1],"stop":false,"tokens_predicted":1,"tokens_evaluated":4}"#;
        completion.read(plain).unwrap();
        assert!(completion.cut().is_none());
        let last = r#"{"content":"b","tokens":[2],"stop":false,"tokens_predicted":2,"tokens_evaluated":4,
            "timings":{"predicted_n":2}}"#;
        assert_eq!(completion.read(last).unwrap().chunk.unwrap().text, "b");
        let end = completion.cut().unwrap();
        assert_eq!((end.reason, end.tokens_in, end.tokens_out), (FinishReason::Stop, 4, 2));
    }
}
