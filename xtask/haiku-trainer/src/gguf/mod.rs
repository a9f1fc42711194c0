//! The model file: GGUF version 3, as `llama-server` reads it.

mod export;
mod half;
mod writer;

pub use export::export;
pub use writer::{Gguf, Tensor, Value};
