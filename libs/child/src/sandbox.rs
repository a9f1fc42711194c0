//! What a process may touch, for life and with all it starts: files to read, devices to use, and
//! nothing to write (Landlock), and which system calls it may make (`syscalls`). Descriptors that it
//! inherits stay as they are, so a log that is open can be written though its file cannot.
//!
//! The rules are made before the fork, where memory may be allocated; between fork and exec there are
//! only system calls.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, NetPort, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, Scope, path_beneath_rules,
};
use nix::libc;

use crate::syscalls::{Filter, FilterError};

/// What is allowed; everything else of the file system is out of reach. From Linux 6.12 on so are the
/// signals and the abstract sockets of processes that it has not started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sandbox {
    /// Files and directories to read and execute. Those that do not exist are left out.
    pub read: Vec<PathBuf>,
    /// Devices to use: read, write and control.
    pub devices: Vec<PathBuf>,
    /// The TCP port to listen on; where the kernel can tell ports apart (6.7 and newer), no other
    /// port may be listened on and none connected to.
    pub port: Option<u16>,
}

/// The process cannot be confined; it is not started without.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The kernel has no Landlock, or it is switched off.
    #[error(
        "this kernel cannot confine a process: it needs Landlock (Linux 5.13 or newer, with landlock in the lsm= list)"
    )]
    Unsupported,
    /// It has, but the rules could not be made.
    #[error("cannot make the rules that confine a process")]
    Rules(#[source] RulesetError),
    /// Its system calls cannot be filtered.
    #[error("this kernel cannot confine a process's system calls")]
    Syscalls(#[source] FilterError),
}

/// Rules ready to be put on a process.
#[derive(Debug)]
pub(crate) struct Confinement {
    files: OwnedFd,
    syscalls: Filter,
}

impl Sandbox {
    /// Makes the rules.
    pub(crate) fn prepare(&self) -> Result<Confinement, SandboxError> {
        let files = self.rules().map_err(SandboxError::Rules)?.ok_or(SandboxError::Unsupported)?;
        let syscalls = Filter::prepare().map_err(SandboxError::Syscalls)?;
        Ok(Confinement { files, syscalls })
    }

    fn rules(&self) -> Result<Option<OwnedFd>, RulesetError> {
        let newest = ABI::V6;
        let mut rules = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(newest))?
            .scope(Scope::from_all(newest))?;
        if self.port.is_some() {
            rules = rules.handle_access(AccessNet::from_all(newest))?;
        }
        let device = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::ReadDir | AccessFs::IoctlDev;
        let mut rules = rules
            .create()?
            .add_rules(path_beneath_rules(&self.read, AccessFs::from_read(newest)))?
            .add_rules(path_beneath_rules(&self.devices, device))?;
        if let Some(port) = self.port {
            rules = rules.add_rule(NetPort::new(port, AccessNet::BindTcp))?;
        }
        Ok(rules.into())
    }
}

impl Confinement {
    /// Puts the rules on the calling thread, which must be the only one: call it between fork and exec.
    /// Async-signal-safe.
    pub(crate) fn enter(&self) -> io::Result<()> {
        #[expect(unsafe_code, reason = "no allocation is allowed here, so no wrapper is used")]
        // SAFETY: plain system calls with numbers only; the descriptor is open.
        let entered = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1_u64, 0_u64, 0_u64, 0_u64) == 0
                && libc::syscall(libc::SYS_landlock_restrict_self, self.files.as_raw_fd(), 0_u32) == 0
        };
        if entered { self.syscalls.enter() } else { Err(io::Error::last_os_error()) }
    }
}
