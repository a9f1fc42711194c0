//! Exit codes, and the errors that end the process with them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

/// Usage or configuration.
pub const CONFIG: u8 = 2;
/// A service that is needed is not available.
pub const UNAVAILABLE: u8 = 69;
/// Try again later: a port is in use.
pub const TEMPORARY: u8 = 75;
/// Another process holds the runtime directory.
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

/// Another process holds the runtime directory.
#[derive(Debug, thiserror::Error)]
#[error(
    "the runtime directory {} is in use by {} (PID {pid}){}",
    runtime_dir.display(),
    who.as_deref().unwrap_or("another process"),
    self.advice()
)]
pub struct Held {
    /// The directory.
    pub runtime_dir: PathBuf,
    /// Of the other, as it wrote it down.
    pub pid: String,
    /// What the other said it is and where, as `orchestratord at http://127.0.0.1:8080`.
    pub who: Option<String>,
}

/// What `orchestratord run` calls itself where others may ask who holds the directory.
pub const RUN: &str = "orchestratord run";
/// The same for `orchestratord serve`.
pub const SERVE: &str = "orchestratord";

impl Held {
    /// Where the other listens, if it said so.
    #[must_use]
    pub fn addr(&self) -> Option<SocketAddr> {
        let (_, addr) = self.who.as_deref()?.split_once(" at http://")?;
        addr.parse().ok()
    }

    fn advice(&self) -> String {
        let who = self.who.as_deref().unwrap_or_default();
        let meanwhile = if who.starts_with(RUN) {
            ", which prepares or answers one question; wait until it has ended"
        } else if who.starts_with(SERVE) {
            "; `orchestratord run …` uses that one; to start another, stop it"
        } else {
            "; stop it"
        };
        format!("{meanwhile}, or choose another directory with ORCHD_RUNTIME_DIR or paths.runtime")
    }
}

/// The code for an error: its own, or 1.
#[must_use]
pub fn code(error: &anyhow::Error) -> ExitCode {
    ExitCode::from(match error.downcast_ref::<Fatal>() {
        Some(fatal) => fatal.code,
        None if error.is::<Held>() => LOCKED,
        None => 1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(who: &str) -> Held {
        Held { runtime_dir: "/r".into(), pid: "7".to_owned(), who: Some(who.to_owned()) }
    }

    #[test]
    fn the_holder_of_a_directory_is_named_and_can_be_asked() {
        let daemon = held("orchestratord at http://127.0.0.1:8080");
        assert_eq!(daemon.addr(), Some(([127, 0, 0, 1], 8080).into()));
        let text = daemon.to_string();
        assert!(
            text.contains("http://127.0.0.1:8080 (PID 7); `orchestratord run …` uses that one"),
            "{text}"
        );
        let run = held("orchestratord run at http://[::1]:9");
        assert_eq!(run.addr(), Some("[::1]:9".parse().unwrap()));
        assert!(run.to_string().contains("answers one question"), "{run}");
        let unknown = Held { who: None, ..held("") };
        assert_eq!(unknown.addr(), None);
        assert!(unknown.to_string().contains("another process (PID 7); stop it"), "{unknown}");
    }
}
