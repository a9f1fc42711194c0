//! llama-server's surface with deterministic tokens and fault switches: what the tests of
//! everything above an engine run against, in this process ([`Stub`]) or as a program
//! ([`binary`]).
//!
//! Shapes are those of the real server (llama.cpp as vendored by llama-cpp-python 0.3.36); what a
//! test does not need is left out. The tokens are nonsense on purpose, and nothing outside the
//! test harness may depend on this crate.
#![forbid(unsafe_code)]

mod binary;
mod config;
mod faults;
mod frames;
mod generation;
mod http;
mod metronome;
mod once;
mod server;
mod slots;
mod words;

pub use binary::{BinaryError, binary, cargo};
pub use config::{ConfigError, StubConfig};
pub use faults::Faults;
pub use server::{Role, RunningStub, Seen, StartError, Stub, serve};
pub use slots::Stats;
pub use words::{Continuation, tokenize};
