//! A process that an earlier manager started: held by pidfd, so that no signal can reach a
//! stranger that got its number.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::child::readable;
use crate::{Exit, IdentityError, ProcessIdentity, WaitError, pidfd_info, sweep};

/// Somebody else's child, proven to be the recorded process. Dropping this does not end it.
#[derive(Debug)]
pub struct Adopted {
    pidfd: OwnedFd,
    identity: ProcessIdentity,
}

/// The recorded process cannot be adopted.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// It is gone; another process may have its number now, and is left alone.
    #[error("process {0} is gone or is another one now")]
    Gone(u32),
    /// Whether it is the recorded one cannot be told.
    #[error("cannot tell whether process {pid} is the recorded one")]
    Unreadable {
        /// The process.
        pid: u32,
        /// Why.
        #[source]
        source: IdentityError,
    },
}

impl Adopted {
    /// Holds the process with exactly this identity. The pidfd is opened first and the identity
    /// read afterwards, so that what was checked is what is held.
    ///
    /// # Errors
    /// See [`AdoptError`].
    pub fn open(expected: &ProcessIdentity) -> Result<Self, AdoptError> {
        let adopted = Self::of(expected.pid)?;
        if adopted.identity == *expected { Ok(adopted) } else { Err(AdoptError::Gone(expected.pid)) }
    }

    pub(crate) fn of(pid: u32) -> Result<Self, AdoptError> {
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(AdoptError::Gone(pid))?;
        let pidfd = pidfd_open(raw, PidfdFlags::empty()).map_err(|_| AdoptError::Gone(pid))?;
        match ProcessIdentity::with_pidfd(pid, pidfd.as_fd()) {
            Ok(identity) => Ok(Self { pidfd, identity }),
            Err(IdentityError::Gone(pid)) => Err(AdoptError::Gone(pid)),
            Err(source) => Err(AdoptError::Unreadable { pid, source }),
        }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.identity.pid
    }

    /// Its identity.
    #[must_use]
    pub fn identity(&self) -> &ProcessIdentity {
        &self.identity
    }

    /// Resolves when it has exited, with [`Exit::Unknown`]: how it ended may be told a moment later by
    /// [`exit_status`](Self::exit_status). Needs a tokio runtime with I/O.
    ///
    /// # Errors
    /// The exit cannot be observed.
    pub async fn exited(&self) -> Result<Exit, WaitError> {
        readable(&self.pidfd).await.map_err(|source| WaitError { pid: self.pid(), source })?;
        Ok(Exit::Unknown)
    }

    /// How it ended, once it has and its parent has reaped it; `None` until then, and for ever on
    /// kernels before 6.15. Never waits.
    #[must_use]
    pub fn exit_status(&self) -> Option<Exit> {
        pidfd_info::exit_of(&self.pidfd)
    }

    /// SIGTERM, up to `grace`, SIGKILL, and then the same for every process that carries its spawn
    /// id. A zero grace kills at once.
    ///
    /// # Errors
    /// The exit cannot be observed.
    pub async fn terminate(&self, grace: Duration) -> Result<Exit, WaitError> {
        if !grace.is_zero() {
            self.signal(Signal::TERM);
            let _killed_below = tokio::time::timeout(grace, self.exited()).await;
        }
        self.signal(Signal::KILL);
        let exit = self.exited().await?;
        if let Some(spawn_id) = &self.identity.spawn_id {
            sweep::end_spawned(spawn_id.clone()).await;
        }
        Ok(exit)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        // ESRCH: it has exited in the meantime, which is what was wanted.
        let _sent = pidfd_send_signal(&self.pidfd, signal);
    }
}
