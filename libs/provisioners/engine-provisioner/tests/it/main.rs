//! The provisioner from the outside, on machines made of scripts.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step of a test should panic")]

mod air_gap;
mod bars;
mod bundle;
mod bundle_lies;
mod cli;
mod cuda;
mod ensure;
mod https;
mod kills;
mod machine;
mod plan;
mod sources;
mod store;
