//! orchestratord: the control plane. This library is its HTTP edge, its handoff feed and its
//! composition; `dispatch` holds the queue and placement.
//!
//! Never touches engine processes and never invents tokens.
#![forbid(unsafe_code)]

pub mod app;
mod built;
pub mod cli;
mod compose;
mod credentials;
mod descriptors;
pub mod exit;
pub mod explain;
mod feed;
mod follow_config;
mod http;
pub mod journal;
mod kept;
mod listen;
pub mod logging;
mod measured;
mod metrics;
mod otlp;
mod pool_manager;
mod progress;
mod reload;
pub mod run;
pub mod runtime;
pub mod serve;
mod settings;
#[cfg(test)]
mod tests;
pub mod token;
mod tokens;
mod usage;
pub mod verify;

pub use http::{AppState, router};
