//! Why a model is not staged, in words for whoever asked for it.

use std::path::PathBuf;

use crate::ModelRef;
use crate::digest::DigestError;
use crate::gguf::GgufError;
use crate::remote::FetchError;

/// Why a model is not staged.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// No such built-in model.
    #[error("there is no built-in model {name:?}; known: {known}")]
    UnknownBuiltin {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// The file is not there.
    #[error("the model file {path} does not exist; check `model:` in the configuration")]
    Missing {
        /// The path, absolute.
        path: PathBuf,
    },
    /// The path is a directory, a device or cannot be looked at.
    #[error("the model {path} cannot be used: {problem}")]
    Unusable {
        /// The path.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// It did not come over the network.
    #[error("cannot fetch the model {reference}")]
    Fetch {
        /// The reference.
        reference: String,
        /// Why.
        source: Box<FetchError>,
    },
    /// It may not be used on this machine.
    #[error("UNTRUSTED_ARTIFACT: {reference} is refused: {problem}")]
    Untrusted {
        /// The reference.
        reference: String,
        /// Why.
        problem: String,
    },
    /// The file is not the one that was asked for.
    #[error(
        "{path} has SHA-256 {actual}, expected {expected}; the file was changed or damaged: fetch it \
         again, or correct `model_sha256`"
    )]
    DigestMismatch {
        /// The file.
        path: PathBuf,
        /// As configured.
        expected: String,
        /// As computed.
        actual: String,
    },
    /// The digest could not be computed.
    #[error("cannot verify the model")]
    Digest {
        /// Why.
        #[from]
        source: DigestError,
    },
    /// The file is no usable GGUF model.
    #[error("{path} is not a usable GGUF model")]
    Gguf {
        /// The file.
        path: PathBuf,
        /// Why.
        source: GgufError,
    },
    /// The cache cannot be written.
    #[error(
        "cannot write the model into the cache at {path}; check space and permissions, or set LLAMA_ORCH_CACHE"
    )]
    Store {
        /// The file in the cache.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

impl StageError {
    /// Why `reference` does not come over the network.
    #[must_use]
    pub fn of_fetch(reference: &ModelRef, source: FetchError) -> Self {
        let reference = reference.to_string();
        match source {
            FetchError::Untrusted { problem } => Self::Untrusted { reference, problem },
            source => Self::Fetch { reference, source: Box::new(source) },
        }
    }

    /// Whether it ended because someone asked to stop.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        match self {
            Self::Digest { source: DigestError::Cancelled { .. } } => true,
            Self::Fetch { source, .. } => matches!(**source, FetchError::Cancelled),
            _ => false,
        }
    }

    /// Whether the bytes are not those that were asked for, or not to be trusted.
    #[must_use]
    pub fn is_wrong_digest(&self) -> bool {
        match self {
            Self::DigestMismatch { .. } | Self::Untrusted { .. } => true,
            Self::Fetch { source, .. } => matches!(**source, FetchError::WrongDigest { .. }),
            _ => false,
        }
    }
}
