//! An engine and a model in one file, for machines without any network: packed where both are, unpacked
//! and verified where they are needed.
//!
//! The file is a plain tar. Its first entry, `bundle.json`, lists every other with size and SHA-256; what is
//! not listed is refused. An engine from a bundle serves a pool whose source and build flags are those it was
//! built from, or which names by `path` what it was there, on a processor that has what it may use; the smoke gate
//! runs again there.

mod archive;
mod export;
mod fit;
mod import;

use std::path::{Path, PathBuf};

use provisioners_model_provisioner::CatalogError;
use serde::{Deserialize, Serialize};

use crate::error::EnsureError;

pub(crate) use fit::{imported, stand_in, unfit};
pub use import::import;

/// Raised when an older reader could not use what a newer writer packs.
const FORMAT: u32 = 1;
const CONTENTS: &str = "bundle.json";
const ENGINE: &str = "engine";
const MODEL: &str = "model";

/// What is in a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    format: u32,
    /// As `x86_64`.
    architecture: String,
    engine_digest: String,
    engine_version: String,
    /// As the pool's `model` says.
    model_reference: String,
    model_digest: String,
    files: Vec<Packed>,
}

/// One file in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Packed {
    /// As `engine/bin/llama-server`.
    path: String,
    sha256: String,
    bytes: u64,
    executable: bool,
}

/// What was packed or taken in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Bundled {
    /// The file.
    pub file: PathBuf,
    /// SHA-256 (hex) of the file: whoever imports it can be told by another way.
    pub sha256: String,
    /// Size of the file.
    pub bytes: u64,
    /// As a `PreparedEngine` names it.
    pub engine_version: String,
    /// The engine.
    pub engine_digest: String,
    /// The model, as the pool names it.
    pub model_reference: String,
    /// The model.
    pub model_digest: String,
    /// What keeps the engine from being used on this machine, or on many others, if anything; for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notice: Option<String>,
}

/// Why there is no bundle, or nothing of it was taken in.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The engine or the model is not there to be packed.
    #[error("cannot pack a bundle")]
    Ensure {
        /// Why.
        #[from]
        source: EnsureError,
    },
    /// It would be of no use on another machine.
    #[error("cannot pack this pool: {problem}")]
    Unportable {
        /// Why, and what to do instead.
        problem: String,
    },
    /// The file is not what it should be. Nothing of it was used.
    #[error("{file} is refused: {problem}; nothing of it was used")]
    Refused {
        /// The bundle.
        file: PathBuf,
        /// Why.
        problem: String,
    },
    /// The model of the bundle is not whole.
    #[error("the model of {file} is refused")]
    Model {
        /// The bundle.
        file: PathBuf,
        /// Why.
        source: CatalogError,
    },
    /// A file cannot be read or written.
    #[error("cannot {action} {path}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Someone asked to stop.
    #[error("interrupted; nothing is left of it")]
    Cancelled,
}

impl BundleError {
    /// The exit code of `engine-provisioner`.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Ensure { source } => source.exit_code(),
            Self::Unportable { .. } => 2,
            Self::Refused { .. } | Self::Model { .. } => 7,
            Self::Io { .. } => 4,
            Self::Cancelled => 130,
        }
    }
}

fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> BundleError + use<'a> {
    move |source| BundleError::Io { action, path: path.to_path_buf(), source }
}
