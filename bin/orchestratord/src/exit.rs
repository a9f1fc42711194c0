//! Exit codes, and the errors that end the process with them.

use std::process::ExitCode;

/// Usage or configuration.
pub const CONFIG: u8 = 2;
/// A service that is needed is not available.
pub const UNAVAILABLE: u8 = 69;
/// Try again later: a port or a directory is in use.
pub const TEMPORARY: u8 = 75;
/// Another manager holds the runtime directory.
pub const LOCKED: u8 = 100;

/// An error that decides the exit code.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Fatal {
    code: u8,
    message: String,
}

impl Fatal {
    /// An error for people, with its code.
    pub fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// The code for an error: its own, or 1.
#[must_use]
pub fn code(error: &anyhow::Error) -> ExitCode {
    ExitCode::from(error.downcast_ref::<Fatal>().map_or(1, |fatal| fatal.code))
}
