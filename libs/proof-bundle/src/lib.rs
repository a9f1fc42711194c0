//! Evidence of a test run, as files a person can read: what ran, where, every event in order, and
//! a report. Lies under `<crate>/.proof_bundle/<kind>/<run id>/`.
//!
//! Nothing is judged here: a bundle says what happened, the test says whether it was right. Only
//! tests depend on this crate.
#![forbid(unsafe_code)]

mod bundle;
mod facts;

pub use bundle::{Kind, ProofBundle, Root};
pub use facts::SCHEMA_VERSION;
