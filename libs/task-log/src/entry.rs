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
