//! Every interleaving of the writer of a log in memory, whoever publishes, and a reader; the hand-over to the
//! journal has its models beside it, in `journal::event_queue`. `cargo xtask loom` runs both, and without its
//! `--cfg loom` this is empty.
//!
//! What is tried is where our own locks and atomics are taken: a step of one of tokio's primitives is one step
//! here, because tokio tries those itself.
#![allow(unexpected_cfgs, reason = "cfg(loom) is given by hand")]

#[cfg(loom)]
#[path = "loom/models.rs"]
mod models;
