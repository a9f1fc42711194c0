//! Every interleaving of the writer of a log in memory, whoever publishes, and a reader; the hand-over to the
//! journal has no model here. Run by
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test --release -p task-log --test loom --target-dir target/loom
//! ```
//!
//! and empty otherwise: loom replaces the primitives that tokio is built on.
#![allow(unexpected_cfgs, reason = "cfg(loom) is given by hand")]

#[cfg(loom)]
#[path = "loom/models.rs"]
mod models;
