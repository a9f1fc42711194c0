//! Every interleaving of those who take, hold and give back slots and of the replica that goes away
//! under them. `cargo xtask loom` runs it, and without its `--cfg loom` this is empty.
//!
//! What is tried is where the registry's own lock is taken: a step of one of tokio's primitives is one step
//! here, because tokio tries those itself.
#![allow(unexpected_cfgs, reason = "cfg(loom) is given by hand")]

#[cfg(loom)]
#[path = "loom/models.rs"]
mod models;
