//! What can be wrong with a configuration. `Display` is the whole message: it is printed as it is
//! to the person who wrote the file.

use std::fmt;
use std::path::PathBuf;

/// Why there is no configuration. Callers exit with 2.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The working directory is gone or unreadable.
    #[error("cannot determine the working directory: {problem}")]
    WorkingDir {
        /// The system's reason.
        problem: String,
    },
    /// A `~` without a home directory.
    #[error(
        "cannot expand {path}: the variable HOME is not set; set it, or write an absolute path \
         (LLAMA_ORCH_CACHE and ORCHD_RUNTIME_DIR override the directories)"
    )]
    NoHome {
        /// The path that begins with `~`.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("cannot read the configuration file {path}: {problem}")]
    Read {
        /// The file, absolute.
        path: PathBuf,
        /// Why, and what to do.
        problem: String,
    },
    /// The file does not parse, has an unknown key or a value of the wrong type.
    #[error("{path}{place}: {problem}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// `:line:column`, where known.
        place: Place,
        /// What is wrong, with the nearest known key.
        problem: String,
    },
    /// The file parses, but values contradict each other or the rules.
    #[error("{}", join(problems))]
    Values {
        /// All problems, in file order.
        problems: Vec<LocatedProblem>,
    },
    /// The effective configuration has a value that cannot be written, as a path that is not UTF-8.
    #[error("cannot show the configuration: {problem}")]
    Unshowable {
        /// What the writer says.
        problem: String,
    },
    /// A variable of the environment cannot be used.
    #[error("the environment variable {name}={value} {problem}")]
    Variable {
        /// Its name.
        name: &'static str,
        /// Its value.
        value: String,
        /// What is wrong and what to write instead.
        problem: String,
    },
}

/// A line and column, counted from 1; `Display` is `:line:column` or nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Known.
    At {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// The parser could not tell.
    Unknown,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At { line, column } => write!(f, ":{line}:{column}"),
            Self::Unknown => Ok(()),
        }
    }
}

/// One problem with a value: file, place, dotted path, what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}{place}: {key}: {problem}")]
pub struct LocatedProblem {
    /// The file.
    pub file: PathBuf,
    /// The line of the key, or of the nearest key above it that is written down.
    pub place: Place,
    /// Dotted path, as `pools[1].slots`.
    pub key: String,
    /// What is wrong.
    pub problem: String,
}

fn join(problems: &[LocatedProblem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
