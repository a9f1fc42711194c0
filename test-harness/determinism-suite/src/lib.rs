//! What the suite stands on: an orchestratord of its own with two replicas of one deterministic pool on
//! the real engine, ways to ask them directly and through the front door, and a wire that can be cut.
//!
//! Judges nothing; the claims are in `tests/`.
#![forbid(unsafe_code)]

mod cut;
mod engine;
mod lab;

pub use cut::CutWire;
pub use engine::{Answer, Engine, Question};
pub use lab::{Lab, tokens_sha256};
