//! Every interleaving of those who take, hold and give back slots and of the replica that goes away
//! under them. Run by
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test --release -p registry --test loom --target-dir target/loom
//! ```
//!
//! and empty otherwise: loom replaces the primitives that tokio is built on.
#![allow(unexpected_cfgs, reason = "cfg(loom) is given by hand")]

#[cfg(loom)]
#[path = "loom/models.rs"]
mod models;
