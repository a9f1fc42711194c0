//! Speaks llama-server's HTTP protocol: the one adapter behind [`adapter_host::WorkerAdapter`].
//!
//! Requests are built from typed fields, so nothing a client sent reaches the engine unseen, and a
//! generation is cancelled by closing its connection, which is all llama-server understands. It
//! never retries, counts or places: that is dispatch's.
#![forbid(unsafe_code)]

mod chat;
mod client;
mod completion;
mod framing;
mod http1;
#[cfg(test)]
mod mutated;
mod once;
mod refusal;
mod request;
mod sse;
mod stream;

pub use client::{LlamaCpp, NewError};
