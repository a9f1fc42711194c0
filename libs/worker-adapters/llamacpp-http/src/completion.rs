//! The frames of `/completion`. Known limit of the protocol: of a character that several tokens
//! make up, the engine reports only the last token's id.

use adapter_host::{Finished, StreamFault};
use serde::Deserialize;
use wire::event::FinishReason;

use crate::stream::{Read, Step, chunk, malformed};

#[derive(Default)]
pub(crate) struct Completion;

#[derive(Deserialize)]
struct Frame {
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
}

impl Read for Completion {
    fn read(&mut self, data: &str) -> Result<Step, StreamFault> {
        let frame: Frame = serde_json::from_str(data).map_err(|error| malformed(&error))?;
        let mut step = Step::default();
        if !frame.stop || !frame.content.is_empty() || !frame.tokens.is_empty() {
            step.chunk = Some(chunk(frame.content, frame.tokens, data)?);
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
            });
        }
        Ok(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_final_frame_may_carry_text_too() {
        let data = r#"{"content":" end","tokens":[7],"stop":true,"stop_type":"eos",
            "tokens_predicted":9,"tokens_evaluated":4}"#;
        let step = Completion.read(data).unwrap();
        let chunk = step.chunk.unwrap();
        assert_eq!((chunk.text.as_str(), &chunk.tokens[..]), (" end", &[7][..]));
        let finished = step.finished.unwrap();
        assert_eq!((finished.reason, finished.tokens_in, finished.tokens_out), (FinishReason::Stop, 4, 9));
    }

    #[test]
    fn a_frame_without_its_fields_breaks_the_protocol() {
        for bad in
            ["{}", "[]", "nonsense", r#"{"stop":true,"stop_type":"none"}"#, r#"{"stop":false,"tokens":[-1]}"#]
        {
            assert!(matches!(Completion.read(bad), Err(StreamFault::Protocol(_))), "{bad}");
        }
    }

    #[test]
    fn a_fault_never_quotes_the_stream() {
        let error = Completion.read(r#"{"stop":"my secret words"}"#).unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }
}
