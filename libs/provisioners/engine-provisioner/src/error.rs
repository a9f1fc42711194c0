//! Why there is no engine. Each variant is something its reader can act on; the process exit code of
//! each is decided here, in one place.

use std::fmt;
use std::path::PathBuf;

use provisioners_model_provisioner::StageError;
use serde::{Deserialize, Serialize};
use wire::PoolId;

use crate::preflight::Report;

/// Why `ensure` did not return an engine.
#[derive(Debug, thiserror::Error)]
pub enum EnsureError {
    /// The pool's configuration cannot be carried out.
    #[error("pool {pool}: {problem}")]
    Config {
        /// The pool.
        pool: PoolId,
        /// Key, value and what to write instead.
        problem: String,
    },
    /// The GPU policy forbids what this machine can do.
    #[error("pool {pool}: {problem}; {remedy}")]
    Gpu {
        /// The pool.
        pool: PoolId,
        /// What is missing.
        problem: String,
        /// What to do.
        remedy: String,
    },
    /// Tools are missing; nothing was fetched.
    #[error("pool {pool}: this machine cannot build the engine yet:{}", lines(&report.checks))]
    Preflight {
        /// The pool.
        pool: PoolId,
        /// What is there and everything that is missing, at once.
        report: Report,
    },
    /// No source led to an engine.
    #[error("pool {pool}: no source of the engine worked:{}", lines(attempts))]
    NoSource {
        /// The pool.
        pool: PoolId,
        /// Each source, in order, and why it failed.
        attempts: Vec<Attempt>,
    },
    /// The model is not there or not usable.
    #[error("pool {pool}: the model cannot be staged")]
    Model {
        /// The pool.
        pool: PoolId,
        /// Why.
        source: Box<StageError>,
    },
    /// The cache directory cannot be used.
    #[error("cannot {action} {path}; check space and permissions, or set LLAMA_ORCH_CACHE")]
    Cache {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Someone asked to stop.
    #[error("interrupted; what was built so far is kept and continued next time")]
    Cancelled,
}

/// One source that did not work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Which, as `sdist llama-cpp-python 0.3.36`.
    pub source: String,
    /// What kind of failure.
    pub kind: FailureKind,
    /// Why it failed, with the last lines of output where there are any.
    pub reason: String,
}

/// What kind of failure a source ended in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// It could not be fetched.
    Fetch,
    /// It did not compile.
    Build,
    /// It is not what it should be.
    Verification,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.source, self.reason)
    }
}

impl EnsureError {
    /// The exit code of `engine-provisioner`, as its manual lists them.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config { .. } => 2,
            Self::Gpu { .. } | Self::Preflight { .. } => 3,
            Self::NoSource { attempts, .. } => {
                let any = |kind| attempts.iter().any(|attempt| attempt.kind == kind);
                // The most alarming kind wins: a wrong digest, then a failed build.
                if any(FailureKind::Verification) {
                    7
                } else if any(FailureKind::Build) {
                    5
                } else {
                    4
                }
            }
            Self::Cache { .. } => 4,
            Self::Model { source, .. } if source.is_wrong_digest() => 7,
            Self::Model { .. } => 6,
            Self::Cancelled => 130,
        }
    }
}

fn lines(items: &[impl fmt::Display]) -> String {
    items.iter().map(|item| format!("\n  - {}", item.to_string().replace('\n', "\n    "))).collect()
}

/// Why one source did not lead to an engine, before it is written into an [`Attempt`].
#[derive(Debug)]
pub(crate) enum SourceFailure {
    /// Try the next one.
    Next(FailureKind, String),
    /// Give up altogether.
    Stop(EnsureError),
}

impl SourceFailure {
    pub(crate) fn fetch(reason: impl Into<String>) -> Self {
        Self::Next(FailureKind::Fetch, reason.into())
    }

    pub(crate) fn verification(reason: impl Into<String>) -> Self {
        Self::Next(FailureKind::Verification, reason.into())
    }

    pub(crate) fn cache(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Stop(EnsureError::Cache { action, path, source })
    }
}

impl From<EnsureError> for SourceFailure {
    fn from(error: EnsureError) -> Self {
        Self::Stop(error)
    }
}
