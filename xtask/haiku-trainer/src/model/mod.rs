//! The network: a llama-architecture decoder with a hand-written forward and backward pass.
//!
//! RMS norm, rotary positions over interleaved pairs, causal attention, SwiGLU, and one table
//! for both embedding and output. It is exactly what `llama-server` computes for the `llama`
//! architecture, so the trained numbers are written to the file without any permutation.

mod attention;
mod backward;
mod batch;
mod config;
mod forward;
mod layout;
mod ops;

pub use backward::backward;
pub use batch::Batch;
pub use config::Config;
pub use forward::{Activations, forward};
pub use layout::{LayerLayout, Layout, initial_params};
