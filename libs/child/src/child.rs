//! A child of ours: waiting for its exit without a thread, ending it with everything it started,
//! and reaping it.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::{ProcessIdentity, sweep};

/// A started process. It leads its own session.
///
/// Dropping this does **not** end the process: engines outlive their manager. A process that had
/// already exited is reaped by the drop.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    pidfd: OwnedFd,
    identity: ProcessIdentity,
    /// Set once, by whoever reaps. While it is `None` the PID cannot be reused, and signalling the
    /// group by number is safe.
    reaped: Mutex<Option<Exit>>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It returned this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// It is gone, and nobody but its parent could know how.
    Unknown,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(signal) => write!(f, "was ended by signal {signal}{}", signal_name(*signal)),
            Self::Unknown => f.write_str("is gone; how it ended is unknown"),
        }
    }
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        4 => " (SIGILL)",
        6 => " (SIGABRT)",
        7 => " (SIGBUS)",
        8 => " (SIGFPE)",
        9 => " (SIGKILL)",
        11 => " (SIGSEGV)",
        15 => " (SIGTERM)",
        _ => "",
    }
}

/// Waiting for a process failed; whether it lives is not known.
#[derive(Debug, thiserror::Error)]
#[error("cannot wait for process {pid}")]
pub struct WaitError {
    /// The process.
    pub pid: u32,
    /// Why.
    #[source]
    pub source: io::Error,
}

impl Child {
    pub(crate) fn new(pid: Pid, pidfd: OwnedFd, identity: ProcessIdentity) -> Self {
        Self { pid, pidfd, identity, reaped: Mutex::new(None) }
    }

    /// Its process id, which is also its session and group.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.identity.pid
    }

    /// What to record in order to know it again.
    #[must_use]
    pub fn identity(&self) -> &ProcessIdentity {
        &self.identity
    }

    /// Resolves when the process has exited. Does not reap, so the group can still be signalled;
    /// may be called again and from several places. Needs a tokio runtime with I/O.
    ///
    /// # Errors
    /// The exit cannot be observed.
    pub async fn exited(&self) -> Result<Exit, WaitError> {
        if let Some(exit) = self.known() {
            return Ok(exit);
        }
        readable(&self.pidfd).await.map_err(|source| self.wait_error(source))?;
        self.status(WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
    }

    /// Ends the process and everything in its session: SIGTERM to the group, up to `grace` for the
    /// leader to leave, SIGKILL to whatever remains, then reaps. A zero grace kills at once. Also for
    /// a process that has exited already: what it left behind is ended, and its own exit returned.
    ///
    /// # Errors
    /// The exit cannot be observed.
    pub async fn terminate(&self, grace: Duration) -> Result<Exit, WaitError> {
        if let Some(exit) = self.known() {
            return Ok(exit);
        }
        if !grace.is_zero() {
            self.signal_group(Signal::TERM);
            let _killed_below = tokio::time::timeout(grace, self.exited()).await;
        }
        self.signal_group(Signal::KILL);
        let _exit = self.exited().await?;
        // Those that left the group; the number of the session is ours until the leader is reaped.
        sweep::end_session(self.pid(), self.identity.spawn_id.clone()).await;
        self.reap()
    }

    /// Kills the process and its group and reaps it. Blocks until it is gone, which is a moment later.
    ///
    /// # Errors
    /// The exit cannot be observed.
    pub fn kill(&self) -> Result<Exit, WaitError> {
        self.signal_group(Signal::KILL);
        self.reap()
    }

    fn reap(&self) -> Result<Exit, WaitError> {
        let mut reaped = self.reaped.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(exit) = *reaped {
            return Ok(exit);
        }
        let exit = self.status(WaitIdOptions::EXITED)?;
        *reaped = Some(exit);
        Ok(exit)
    }

    fn known(&self) -> Option<Exit> {
        *self.reaped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signal_group(&self, signal: Signal) {
        let reaped = self.reaped.lock().unwrap_or_else(PoisonError::into_inner);
        if reaped.is_none() {
            // ESRCH cannot be: the unreaped leader keeps its group in being.
            let _sent = kill_process_group(self.pid, signal);
        }
    }

    fn status(&self, options: WaitIdOptions) -> Result<Exit, WaitError> {
        let status = waitid(WaitId::PidFd(self.pidfd.as_fd()), options)
            .map_err(|e| self.wait_error(e.into()))?
            .ok_or_else(|| self.wait_error(io::ErrorKind::WouldBlock.into()))?;
        Ok(match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Exit::Code(code),
            (None, Some(signal)) => Exit::Signal(signal),
            (None, None) => Exit::Unknown,
        })
    }

    fn wait_error(&self, source: io::Error) -> WaitError {
        WaitError { pid: self.pid(), source }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let reaped = self.reaped.get_mut().unwrap_or_else(PoisonError::into_inner);
        if reaped.is_none() {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
            let _zombie_or_alive = waitid(WaitId::PidFd(self.pidfd.as_fd()), options);
        }
    }
}

/// A pidfd becomes readable when its process has exited. The descriptor is duplicated because one
/// descriptor can be registered only once, and several may wait.
pub(crate) async fn readable(pidfd: &OwnedFd) -> io::Result<()> {
    #[expect(unsafe_code, reason = "tokio has no safe way to watch a descriptor any more")]
    // SAFETY: the OwnedFd is the only owner of its descriptor, gives the same number every time it is
    // asked, and closes it only when the AsyncFd that holds it has deregistered it.
    let watched = unsafe { AsyncFd::register_with_interest(pidfd.try_clone()?, Interest::READABLE) }?;
    watched.readable().await?.retain_ready();
    Ok(())
}
