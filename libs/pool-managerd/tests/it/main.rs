//! The daemon as others see it: real processes (stub-llama), real files, real HTTP.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed setup is a failed test; the exception for tests does not reach their helpers"
)]

mod api;
mod catalog;
mod causes;
mod configure;
mod consumer;
mod daemon;
mod determinism;
mod devices;
mod drain;
mod harness;
mod life;
mod logs;
mod loss;
mod managers;
mod memory;
mod preload;
mod probes;
mod reload;
mod sandbox;
mod service;
mod simulation;
