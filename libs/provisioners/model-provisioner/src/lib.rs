//! Resolves a model reference to a verified local file with its metadata.
//!
//! [`ModelRef`] is the parsed reference, [`ModelProvisioner::stage`] makes it a [`wire::ModelRecord`]:
//! a local path, its SHA-256, and what its GGUF header says. `hf:` and `https:` references are fetched,
//! verified and kept within a quota. It knows no engine, and starts no process.
//! Everything here blocks; call it off the async threads.
#![forbid(unsafe_code)]

mod builtin;
mod cancel;
mod catalog;
mod digest;
mod estimate;
mod file_memory;
mod foresee;
pub mod gguf;
mod in_use;
mod pack;
mod provenance;
mod reference;
mod remote;
mod stage;
mod stage_error;
mod trust;

pub use cancel::Cancel;
pub use catalog::{Catalog, CatalogError};
pub use digest::{DigestCache, DigestError, sha256_file};
pub use estimate::{Load, estimate};
pub use file_memory::{FileMemory, FileState};
pub use in_use::InUse;
pub use pack::PackedModel;
pub use reference::{ModelRef, ModelRefError, Selector};
pub use remote::{
    Announced, Connections, FetchError, Network, Patience, Pinned, Unfinished, announced_bytes, fetch_pinned,
};
pub use stage::{ModelProvisioner, StageEvent, StageProgress};
pub use stage_error::StageError;
pub use trust::{VerifyFile, admit};
