//! The HTTP edge: parses, checks, asks `dispatch`, renders. Knows no engine.

mod access;
mod anthropic;
mod artifacts;
mod capabilities;
mod catalog;
mod context;
mod dashboard;
mod devices;
mod door;
mod error;
mod events;
mod extract;
mod guard;
mod logs;
mod manager;
mod meta;
mod openai;
mod operations;
mod pools;
mod progress;
mod query;
mod responses;
mod results;
mod router;
mod server;
mod sessions;
mod sse;
mod state;
mod tasks;
pub(crate) mod tls;
mod too_slow;
mod trace;
mod validate;
mod words;
mod workers;

pub(crate) use extract::BodyLimits;
#[cfg(test)]
pub(crate) use extract::MAX_BODY_BYTES;
pub(crate) use guard::Guard;
pub(crate) use meta::SERVICE;
pub use router::router;
pub(crate) use server::{Limits as ServerLimits, Server};
pub use state::AppState;
pub(crate) use state::Parts;
pub(crate) use state::{Configuration, Kinds, StartTime, unix_seconds};
pub(crate) use trace::{Part, Traces};
