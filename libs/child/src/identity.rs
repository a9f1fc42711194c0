//! What makes a process the same process: not its PID alone, which is reused, but everything that
//! a stranger with the same PID cannot have.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use crate::{SPAWN_ID_VARIABLE, SpawnId, procfs};

/// `f_type` of pidfs, where each process has its own inode number (Linux 6.9 and newer).
const PIDFS_MAGIC: u64 = 0x5049_4446;

/// One process for all time: two equal identities are the same process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessIdentity {
    /// Process id.
    pub pid: u32,
    /// The boot it lives in; PIDs and ticks mean nothing across boots.
    pub boot_id: String,
    /// When it started, in clock ticks since boot.
    pub start_ticks: u64,
    /// Device of its executable.
    pub exe_dev: u64,
    /// Inode of its executable.
    pub exe_ino: u64,
    /// From its environment; absent in a process that was not started by this crate.
    pub spawn_id: Option<SpawnId>,
    /// Its inode in pidfs, never reused within a boot; absent on kernels before 6.9.
    pub pidfs_ino: Option<u64>,
}

/// A process could not be identified.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// There is no such process, or it is a zombie.
    #[error("there is no process {0}")]
    Gone(u32),
    /// It exists, but `/proc` does not say what is needed (another user's process, or no `/proc`).
    #[error("cannot read what process {pid} is")]
    Read {
        /// The process.
        pid: u32,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl ProcessIdentity {
    /// Identifies a living process. Blocking, but never for long.
    ///
    /// # Errors
    /// The process is gone, or may not be looked at.
    pub fn of(pid: u32) -> Result<Self, IdentityError> {
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(IdentityError::Gone(pid))?;
        let pidfd = pidfd_open(raw, PidfdFlags::empty()).map_err(|e| classify(pid, e.into()))?;
        Self::with_pidfd(pid, pidfd.as_fd())
    }

    /// As [`of`](Self::of), for a process already held by a pidfd.
    pub(crate) fn with_pidfd(pid: u32, pidfd: BorrowedFd<'_>) -> Result<Self, IdentityError> {
        let read = |e| classify(pid, e);
        let stat = procfs::stat(pid).map_err(read)?;
        let exe = std::fs::metadata(format!("/proc/{pid}/exe")).map_err(read)?;
        let spawn_id = procfs::environment_value(pid, SPAWN_ID_VARIABLE).map_err(read)?;
        Ok(Self {
            pid,
            boot_id: procfs::boot_id().map_err(|source| IdentityError::Read { pid, source })?,
            start_ticks: stat.start_ticks,
            exe_dev: exe.dev(),
            exe_ino: exe.ino(),
            spawn_id: spawn_id.map(SpawnId::from_environment),
            pidfs_ino: pidfs_ino(pidfd),
        })
    }
}

fn classify(pid: u32, source: io::Error) -> IdentityError {
    let gone = [rustix::io::Errno::SRCH, rustix::io::Errno::NOENT, rustix::io::Errno::INVAL];
    if gone.iter().any(|e| Some(e.raw_os_error()) == source.raw_os_error()) {
        IdentityError::Gone(pid)
    } else {
        IdentityError::Read { pid, source }
    }
}

fn pidfs_ino(pidfd: BorrowedFd<'_>) -> Option<u64> {
    let filesystem = rustix::fs::fstatfs(pidfd).ok()?;
    #[expect(clippy::cast_sign_loss, reason = "the magic number is positive; only equality matters")]
    #[allow(clippy::unnecessary_cast, clippy::allow_attributes, reason = "the type differs between targets")]
    let is_pidfs = filesystem.f_type as u64 == PIDFS_MAGIC;
    is_pidfs.then(|| rustix::fs::fstat(pidfd).ok().map(|s| s.st_ino)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_process_is_equal_to_itself_and_survives_json() {
        let own = ProcessIdentity::of(std::process::id()).unwrap();
        assert_eq!(own, ProcessIdentity::of(std::process::id()).unwrap());
        let text = serde_json::to_string(&own).unwrap();
        assert_eq!(own, serde_json::from_str::<ProcessIdentity>(&text).unwrap());
    }

    #[test]
    fn a_pid_that_cannot_be_is_gone() {
        assert!(matches!(ProcessIdentity::of(0), Err(IdentityError::Gone(0))));
        assert!(matches!(ProcessIdentity::of(u32::MAX), Err(IdentityError::Gone(_))));
        assert!(matches!(ProcessIdentity::of(4_000_000), Err(IdentityError::Gone(_))));
    }
}
