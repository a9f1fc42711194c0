//! What a log holds and how a place in it is named.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use wire::EngineChunk;
use wire::event::{End, Resumed, Started, StreamError};

/// One entry. The order is `Started`, then chunks, then exactly one of `End` and `Error`; a task
/// that never got a slot has only the last.
///
/// Its JSON is what the journal keeps: a change of this shape is a new version of the segments, but for a
/// field that may be absent and that nothing is wrong without.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// The task has a slot.
    Started(Started),
    /// A piece of the generation.
    Chunk {
        /// As the engine sent it.
        chunk: EngineChunk,
        /// Number of this token event: `Some` exactly when the chunk carries text; 0-based and
        /// without gaps.
        index: Option<u64>,
        /// What the task had spent on engines by then, all of them together, in milliseconds: with some
        /// chunks, for a process that goes on with it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        decode_ms: Option<u64>,
    },
    /// It goes on with another engine.
    Resumed(Resumed),
    /// It ended by itself or by its owner.
    End(End),
    /// It failed.
    Error(StreamError),
}

impl Entry {
    /// Whether nothing comes after it.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::End(_) | Self::Error(_))
    }

    /// Appends its JSON. A token of a task is written here by hand, because it is most of what is written and
    /// costs a third of what it costs with serde; the bytes are serde's.
    pub(crate) fn put_json(&self, out: &mut Vec<u8>) -> serde_json::Result<()> {
        match self {
            Self::Chunk {
                chunk: EngineChunk { text, tokens, unnamed: 0, finishes: false, raw: None },
                index: Some(index),
                decode_ms,
            } => put_token(out, text, tokens, *index, *decode_ms),
            other => serde_json::to_writer(out, other),
        }
    }

    /// Bytes it is counted as: its content and what keeps it.
    pub(crate) fn weight(&self) -> usize {
        let content = match self {
            Self::Chunk { chunk, .. } => {
                let raw = chunk.raw.as_ref().map_or(0, |raw| raw.get().len());
                chunk.text.len() + size_of_val(chunk.tokens.as_slice()) + raw
            }
            Self::Started(_) | Self::Resumed(_) | Self::End(_) | Self::Error(_) => 0,
        };
        content + size_of::<Self>()
    }
}

fn put_token(
    out: &mut Vec<u8>,
    text: &str,
    tokens: &[u32],
    index: u64,
    decode_ms: Option<u64>,
) -> serde_json::Result<()> {
    let mut digits = itoa::Buffer::new();
    out.extend_from_slice(br#"{"chunk":{"chunk":{"text":"#);
    serde_json::to_writer(&mut *out, text)?;
    out.extend_from_slice(br#","tokens":["#);
    for (n, token) in tokens.iter().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        out.extend_from_slice(digits.format(*token).as_bytes());
    }
    out.extend_from_slice(br#"],"raw":null},"index":"#);
    out.extend_from_slice(digits.format(index).as_bytes());
    if let Some(decode_ms) = decode_ms {
        out.extend_from_slice(br#","decode_ms":"#);
        out.extend_from_slice(digits.format(decode_ms).as_bytes());
    }
    out.extend_from_slice(b"}}");
    Ok(())
}

/// An entry of a log by name: the id of an SSE event and the value of `Last-Event-ID`. Opaque to clients.
///
/// A number, and in front of it the process that appended the entry, where that was not the one that
/// admitted the task: `7` and `3-7` are two events, of which at most one was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    pub(crate) life: u64,
    pub(crate) at: u64,
}

/// Why a string is not a position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a position in an event log: use the id of an event of this task")]
pub struct PositionError(String);

impl Position {
    /// Appends it as text, as [`Display`](fmt::Display) writes it and with a part of the work: every event of
    /// a stream has one.
    pub fn put(self, out: &mut Vec<u8>) {
        let mut digits = itoa::Buffer::new();
        if self.life != 0 {
            out.extend_from_slice(digits.format(self.life).as_bytes());
            out.push(b'-');
        }
        out.extend_from_slice(digits.format(self.at).as_bytes());
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.life {
            0 => write!(f, "{}", self.at),
            life => write!(f, "{life}-{}", self.at),
        }
    }
}

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        let position = match text.split_once('-') {
            None => number(text).map(|at| Self { life: 0, at }),
            Some((life, at)) => {
                number(life).filter(|life| *life > 0).zip(number(at)).map(|(life, at)| Self { life, at })
            }
        };
        position.ok_or_else(|| PositionError(text.chars().take(64).collect()))
    }
}

/// Digits only: `u64::from_str` would take a leading plus sign.
fn number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;
    use wire::RawJson;

    use super::*;

    fn chunks() -> impl Strategy<Value = EngineChunk> {
        let unusual = (0..3_u32, any::<bool>(), any::<bool>());
        let unusual = prop_oneof![3 => Just((0, false, false)), 1 => unusual];
        ("\\PC{0,8}|[\"\\\\\u{0}-\u{1f}a]{0,8}", proptest::collection::vec(any::<u32>(), 0..4), unusual)
            .prop_map(|(text, tokens, (unnamed, finishes, raw))| {
                let raw = raw.then(|| RawJson::object([("a", Some("1"))]));
                EngineChunk { text, tokens, unnamed, finishes, raw }
            })
    }

    proptest! {
        /// ORCHD-JOURNAL-002
        #[test]
        fn what_is_written_by_hand_is_what_serde_writes(
            chunk in chunks(),
            index in proptest::option::of(any::<u64>()),
            decode_ms in prop_oneof![3 => Just(None), 1 => proptest::option::of(any::<u64>())],
        ) {
            let entry = Entry::Chunk { chunk, index, decode_ms };
            let mut written = b"before".to_vec();
            entry.put_json(&mut written).unwrap();
            prop_assert_eq!(String::from_utf8(written).unwrap(), format!("before{}", serde_json::to_string(&entry).unwrap()));
        }
    }
}
