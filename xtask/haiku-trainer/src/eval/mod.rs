//! The yardstick: what counts as a pass, and how a running `llama-server` is put to it.

mod client;
mod report;
mod verdict;

pub use client::Client;
pub use report::{Row, measure};
pub use verdict::{Verdict, verdict};
