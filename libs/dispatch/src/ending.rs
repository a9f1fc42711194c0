//! The ways a task can end, and what each says to its readers and to the metrics.

use std::time::Duration;

use adapter_host::Finished;
use serde_json::Value;
use sha2::{Digest, Sha256};
use wire::Seed;
use wire::event::{End, FinishReason, Receipt, StreamError};
use wire::{EngineChunk, ErrorCode, ReplicaKey, TaskState};

/// How a task ends.
#[derive(Debug)]
pub(crate) enum Ending {
    /// The engine finished it.
    Finished(Finished),
    /// Somebody cancelled it.
    Cancelled(CancelReason),
    /// It failed.
    Failed(Failure),
}

/// Who cancelled a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CancelReason {
    /// Its owner asked.
    Requested,
    /// Nobody read for as long as it may run unread.
    Unread,
    /// The connection that it was is gone.
    Disconnected,
}

/// Why a task failed: a code and one sentence for its reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: ErrorCode,
    pub(crate) message: String,
    pub(crate) retry_after: Option<Duration>,
}

/// The tokens of a task so far: counted and hashed as they pass.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    /// Something was generated, not only announced.
    pub(crate) spoken: bool,
    counted: u64,
    ids: u64,
    digest: Sha256,
}

/// What an ended task has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Used {
    /// Only the engine knows it, and says it at its end.
    pub(crate) tokens_in: Option<u64>,
    pub(crate) tokens_out: u64,
}

/// What ran, for the receipt.
#[derive(Debug, Default)]
pub(crate) struct Ran {
    pub(crate) engine_version: String,
    pub(crate) model_digest: String,
    pub(crate) seed: Option<u32>,
    pub(crate) decode: Duration,
}

impl CancelReason {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Unread => "unread",
            Self::Disconnected => "disconnected",
        }
    }
}

impl Failure {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after: None }
    }

    pub(crate) fn deadline() -> Self {
        Self::new(
            ErrorCode::DeadlineExceeded,
            "the task's deadline passed before it ended; give it a longer deadline_ms or fewer max_tokens",
        )
    }

    pub(crate) fn interrupted() -> Self {
        Self::new(
            ErrorCode::Interrupted,
            "orchestratord was shut down before the task ended; submit it again",
        )
    }

    pub(crate) fn cut_off() -> Self {
        Self::new(
            ErrorCode::Interrupted,
            "orchestratord was restarted in the middle of the answer; submit the task again",
        )
    }

    pub(crate) fn unreadable() -> Self {
        Self::new(
            ErrorCode::Interrupted,
            "orchestratord was restarted and could not read the task's prompt back; submit the task again",
        )
    }

    pub(crate) fn engine_lost(reason: &str) -> Self {
        Self::new(ErrorCode::EngineLost, format!("the engine was lost: {reason}; submit the task again"))
    }

    pub(crate) fn draining(replica: &ReplicaKey) -> Self {
        Self::new(
            ErrorCode::PoolDraining,
            format!("{replica} was drained and its deadline passed before the task ended; submit it again"),
        )
    }

    pub(crate) fn dropped(retry_after: Duration) -> Self {
        let message = "the queue was full and dropped its oldest batch task for a new one";
        Self { retry_after: Some(retry_after), ..Self::new(ErrorCode::QueueFull, message) }
    }

    /// As the stream's last event. The log fills in how many token events were sent.
    pub(crate) fn event(&self) -> StreamError {
        StreamError {
            code: self.code,
            message: self.message.clone(),
            retriable: self.code.retriable(),
            retry_after_ms: self.retry_after.and_then(|after| u64::try_from(after.as_millis()).ok()),
            tokens_sent: 0,
        }
    }

    pub(crate) fn state(&self) -> TaskState {
        if self.code == ErrorCode::Interrupted { TaskState::Interrupted } else { TaskState::Failed }
    }
}

impl Tokens {
    pub(crate) fn see(&mut self, chunk: &EngineChunk) {
        self.spoken = self.spoken || says_something(chunk);
        // A protocol without ids sends about one token per piece of text; it counts only for tasks
        // that are cut off before the engine has said the number itself.
        let ids = chunk.tokens.len() as u64;
        self.counted += ids.max(u64::from(!chunk.text.is_empty()));
        self.ids += ids;
        for id in &chunk.tokens {
            self.digest.update(id.to_le_bytes());
        }
    }

    pub(crate) fn used(&self, ending: &Ending) -> Used {
        match ending {
            Ending::Finished(finished) => {
                Used { tokens_in: Some(finished.tokens_in), tokens_out: finished.tokens_out }
            }
            Ending::Cancelled(_) | Ending::Failed(_) => Used { tokens_in: None, tokens_out: self.counted },
        }
    }

    /// `end`, for an ending that is one.
    pub(crate) fn end(&self, used: Used, finish_reason: FinishReason, ran: Ran) -> End {
        // Where the engine's protocol carries no ids there is nothing to hash, and the hash of
        // nothing would claim that two different texts are the same.
        let hashable = self.ids > 0 || used.tokens_out == 0;
        End {
            tokens_in: used.tokens_in,
            tokens_out: used.tokens_out,
            decode_time_ms: millis(ran.decode),
            finish_reason,
            receipt: Receipt {
                engine_version: ran.engine_version,
                model_digest: ran.model_digest,
                seed: ran.seed.map(Seed),
                tokens_sha256: if hashable { hex(&self.digest.clone().finalize()) } else { String::new() },
            },
        }
    }
}

/// Whether a chunk holds anything generated. A chat begins with one that names only the role; it
/// has no text and no ids, and what it holds else stands in its delta.
fn says_something(chunk: &EngineChunk) -> bool {
    if !chunk.text.is_empty() || !chunk.tokens.is_empty() {
        return true;
    }
    let Ok(raw) = serde_json::from_str::<Value>(chunk.raw.get()) else { return true };
    let Some(choice) = raw.pointer("/choices/0") else { return false };
    let empty = |value: &Value| value.is_null() || value.as_str() == Some("");
    let announces = |(name, value): (&String, &Value)| name == "role" || empty(value);
    let delta = choice.get("delta").and_then(Value::as_object);
    let ended = choice.get("finish_reason").is_some_and(|reason| !reason.is_null());
    ended || delta.is_some_and(|delta| !delta.iter().all(announces))
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('?');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_over_the_ids_as_four_little_endian_bytes() {
        let mut tokens = Tokens::default();
        let raw = || serde_json::value::RawValue::from_string("{}".to_owned()).unwrap();
        tokens.see(&EngineChunk { text: "a".to_owned(), tokens: vec![1, 2], raw: raw() });
        tokens.see(&EngineChunk { text: String::new(), tokens: vec![256], raw: raw() });
        let used = Used { tokens_in: Some(0), tokens_out: 3 };
        let end = tokens.end(used, FinishReason::Stop, Ran::default());
        // printf '\1\0\0\0\2\0\0\0\0\1\0\0' | sha256sum
        assert_eq!(
            end.receipt.tokens_sha256,
            "4cce4ffd3b07ffb2139196f2e9112a30f970eae20aa98e082c020c9118bc3a4c"
        );
    }

    /// ORCHD-GATE-002
    #[test]
    fn a_chunk_that_only_announces_says_nothing() {
        for (delta, says) in [
            (r#"{"role":"assistant","content":null}"#, false),
            (r#"{"role":"assistant","content":""}"#, false),
            (r#"{}"#, false),
            (r#"{"reasoning_content":"hm"}"#, true),
            (r#"{"role":"assistant","tool_calls":[{"index":0}]}"#, true),
        ] {
            let raw = format!(r#"{{"choices":[{{"index":0,"finish_reason":null,"delta":{delta}}}]}}"#);
            let raw = serde_json::value::RawValue::from_string(raw).unwrap();
            let chunk = EngineChunk { text: String::new(), tokens: vec![], raw };
            assert_eq!(says_something(&chunk), says, "{delta}");
        }
        let raw = r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#.to_owned();
        let raw = serde_json::value::RawValue::from_string(raw).unwrap();
        assert!(says_something(&EngineChunk { text: String::new(), tokens: vec![], raw }));
    }

    #[test]
    fn text_without_ids_has_no_hash() {
        let mut tokens = Tokens::default();
        let raw = serde_json::value::RawValue::from_string("{}".to_owned()).unwrap();
        tokens.see(&EngineChunk { text: "a".to_owned(), tokens: vec![], raw });
        let used = tokens.used(&Ending::Cancelled(CancelReason::Requested));
        assert_eq!(used.tokens_out, 1);
        assert_eq!(tokens.end(used, FinishReason::Cancelled, Ran::default()).receipt.tokens_sha256, "");
    }
}
