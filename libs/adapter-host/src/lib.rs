//! The seam to an engine: what dispatch asks of one ([`WorkerAdapter`]), what comes back
//! ([`TokenStream`]), and the host that maps a replica to the adapter bound to it now
//! ([`AdapterHost`]).
//!
//! Knows no HTTP client and no registry: adapters live in `worker-adapters/`, readiness in
//! `registry`.
#![forbid(unsafe_code)]

mod adapter;
mod host;
mod request;
mod stream;

pub use adapter::{BoxFuture, ProbeError, Probed, SubmitError, WorkerAdapter};
pub use host::{AdapterHost, Binding};
pub use request::{
    ChatRequest, CompletionRequest, EmbeddingRequest, EngineRequest, Input, Prompt, RerankRequest, Sampling,
    SoFar,
};
pub use stream::{EngineItem, Finished, StreamFault, TokenStream};
