//! A running generation as a value: dropping it cancels it.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use wire::event::FinishReason;
use wire::{EffectiveSampling, EngineChunk};

/// How a generation ended by itself.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Why.
    pub reason: FinishReason,
    /// Prompt tokens, counted by the engine.
    pub tokens_in: u64,
    /// Generated tokens, counted by the engine.
    pub tokens_out: u64,
    /// How it chose them, where it says so.
    pub sampling: Option<Box<EffectiveSampling>>,
}

/// What a [`TokenStream`] yields: chunks, then exactly one `Finished`.
#[derive(Debug, Clone)]
pub enum EngineItem {
    /// A piece.
    Chunk(EngineChunk),
    /// The end.
    Finished(Finished),
}

/// Why a generation broke off. The stream ends after it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamFault {
    /// The connection to the engine broke.
    #[error("the engine was lost: {0}")]
    Lost(String),
    /// The engine sent something that is not its protocol.
    #[error("the engine broke its protocol: {0}")]
    Protocol(String),
    /// The engine reported an error of its own.
    #[error("the engine reported: {0}")]
    Engine(String),
}

type Inner = Pin<Box<dyn Stream<Item = Result<EngineItem, StreamFault>> + Send>>;

/// A running generation. Dropping it closes the connection, and the engine frees the slot.
pub struct TokenStream(Inner);

impl TokenStream {
    /// Wraps an adapter's stream.
    pub fn new(inner: impl Stream<Item = Result<EngineItem, StreamFault>> + Send + 'static) -> Self {
        Self(Box::pin(inner))
    }
}

impl Stream for TokenStream {
    type Item = Result<EngineItem, StreamFault>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(cx)
    }
}

impl fmt::Debug for TokenStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenStream")
    }
}
