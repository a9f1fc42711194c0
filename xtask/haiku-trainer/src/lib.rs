//! Makes the haiku model: a corpus from a grammar, a tokenizer, a small llama-architecture
//! network trained on two cores, and the GGUF file that `llama-server` loads.
//!
//! Everything is derived from one seed, so the same machine makes the same file again. Nothing
//! here runs when the product runs: the product only ships the file.

pub mod chat;
pub mod corpus;
pub mod eval;
pub mod gguf;
pub mod matmul;
pub mod model;
pub mod optim;
pub mod rng;
pub mod tokenizer;
pub mod train;
