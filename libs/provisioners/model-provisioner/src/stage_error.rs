//! Why a model is not staged, in words for whoever asked for it.

use std::path::{Path, PathBuf};

use crate::ModelRef;
use crate::digest::DigestError;
use crate::gguf::GgufError;
use crate::reference::FORMS;
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
    #[error("the model file {path} does not exist; check `model:` in the configuration{}", other_form(path))]
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

/// A word alone is read as a path. What does not look like the file of a model was most likely meant as the name of
/// one, as other programs take it.
fn other_form(path: &Path) -> String {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return String::new() };
    if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf")) {
        return String::new();
    }
    let builtin = crate::builtin::all().iter().any(|model| model.name == name);
    let meant = if builtin { format!(" (did you mean builtin:{name}?)") } else { String::new() };
    format!(". If {name} is no file but the name of a model, say where it is{meant}: write {FORMS}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// MPROV-001
    #[test]
    fn a_word_that_is_no_file_is_answered_with_the_forms_and_a_lost_file_is_not() {
        let said = |path: &str| StageError::Missing { path: path.into() }.to_string();
        let word = said("/srv/qwen");
        assert!(word.contains("/srv/qwen does not exist") && word.contains("If qwen is no file"), "{word}");
        assert!(word.ends_with(FORMS) && !word.contains("did you mean"), "{word}");
        let dotted = said("/srv/Qwen2.5-7B");
        assert!(dotted.contains("If Qwen2.5-7B is no file"), "{dotted}");
        assert!(said("/srv/haiku").contains("did you mean builtin:haiku?"));
        assert!(said("/srv/m.gguf").ends_with("check `model:` in the configuration"));
    }
}
