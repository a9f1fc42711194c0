//! The launch of a long-lived process: what it inherits is what is named here and nothing else.
//!
//! There is no parent-death signal: the process outlives its manager on purpose.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::libc;
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, Signal, kill_process_group, pidfd_open};

use crate::busy::spawn_when_written;
use crate::sandbox::{Confinement, Sandbox, SandboxError};
use crate::{Child, ProcessIdentity, SPAWN_ID_VARIABLE, SpawnId};

/// What to start, built up and then [spawned](Launch::spawn).
#[derive(Debug)]
pub struct Launch {
    program: PathBuf,
    spawn_id: SpawnId,
    log: File,
    args: Vec<OsString>,
    env: BTreeMap<OsString, OsString>,
    directory: Option<PathBuf>,
    limits: Vec<Limit>,
    sandbox: Option<Sandbox>,
}

/// A resource limit for the new process, soft and hard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Open descriptors.
    OpenFiles(u64),
    /// Bytes of address space.
    AddressSpace(u64),
    /// Bytes that may be locked into memory.
    LockedMemory(u64),
}

/// Nothing was started, or what was started has been killed and reaped.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The program could not be executed.
    #[error("cannot start {}", program.display())]
    Exec {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The log file's handle could not be duplicated.
    #[error("cannot hand the log file to {}", program.display())]
    Log {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It was to be confined and cannot be.
    #[error("cannot start {} in its sandbox", program.display())]
    Sandbox {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: SandboxError,
    },
    /// No pidfd: the kernel is older than 5.4, or descriptors ran out.
    #[error("started {} but cannot hold it by a pidfd, so it was killed", program.display())]
    Pidfd {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Launch {
    /// `log` receives stdout and stderr; open it for appending, so that it may be truncated while
    /// the process writes.
    #[must_use]
    pub fn new(program: impl Into<PathBuf>, spawn_id: SpawnId, log: File) -> Self {
        Self {
            program: program.into(),
            spawn_id,
            log,
            args: Vec::new(),
            env: BTreeMap::new(),
            directory: None,
            limits: Vec::new(),
            sandbox: None,
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// Sets a variable. The environment starts empty; the spawn id is added by itself.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.insert(name.as_ref().to_owned(), value.as_ref().to_owned());
        self
    }

    /// Sets the working directory; without it the process inherits ours.
    #[must_use]
    pub fn directory(mut self, directory: impl AsRef<Path>) -> Self {
        self.directory = Some(directory.as_ref().to_owned());
        self
    }

    /// Adds a resource limit. Core dumps are off in any case.
    #[must_use]
    pub fn limit(mut self, limit: Limit) -> Self {
        self.limits.push(limit);
        self
    }

    /// Confines it, and everything it starts, for life.
    #[must_use]
    pub fn sandbox(mut self, sandbox: Sandbox) -> Self {
        self.sandbox = Some(sandbox);
        self
    }

    /// Starts it, as the leader of a new session and process group. Blocks until the program has
    /// been executed, so call it where blocking is allowed.
    ///
    /// # Errors
    /// See [`SpawnError`]; no process is left behind.
    pub fn spawn(self) -> Result<Child, SpawnError> {
        let program = self.program;
        let log_error = |source| SpawnError::Log { program: program.clone(), source };
        let stdout = self.log.try_clone().map_err(log_error)?;
        let mut command = Command::new(&program);
        command.args(&self.args).env_clear().envs(&self.env);
        command.env(SPAWN_ID_VARIABLE, self.spawn_id.as_str());
        command.stdin(Stdio::null()).stdout(stdout).stderr(self.log);
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        let confinement = self.sandbox.as_ref().map(Sandbox::prepare).transpose();
        let confinement =
            confinement.map_err(|source| SpawnError::Sandbox { program: program.clone(), source })?;
        prepare_in_child(&mut command, self.limits, confinement);
        let mut spawned = spawn_when_written(&mut command)
            .map_err(|source| SpawnError::Exec { program: program.clone(), source })?;
        hold(&spawned, &program, &self.spawn_id).inspect_err(|_| {
            if let Some(group) = i32::try_from(spawned.id()).ok().and_then(Pid::from_raw) {
                let _gone_already = kill_process_group(group, Signal::KILL);
            }
            let _reaped = spawned.wait();
        })
    }
}

fn hold(spawned: &std::process::Child, program: &Path, spawn_id: &SpawnId) -> Result<Child, SpawnError> {
    let failed = |source| SpawnError::Pidfd { program: program.to_owned(), source };
    let pid = i32::try_from(spawned.id())
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| failed(io::Error::other("the process id is out of range")))?;
    // The child is ours and unreaped, so its PID cannot have been reused.
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|e| failed(e.into()))?;
    let identity = match ProcessIdentity::with_pidfd(spawned.id(), pidfd.as_fd()) {
        // Its environment is as we have made it. `/proc` shows it only a moment after the program was
        // executed, and whoever reads it before that finds it empty.
        Ok(identity) => ProcessIdentity { spawn_id: Some(spawn_id.clone()), ..identity },
        Err(_already_dead) => unreadable(spawned.id(), spawn_id),
    };
    Ok(Child::new(pid, pidfd, identity))
}

/// A child that died at once has no executable to look at any more. It will be reaped, never
/// adopted, so an identity that matches nothing is right.
fn unreadable(pid: u32, spawn_id: &SpawnId) -> ProcessIdentity {
    ProcessIdentity {
        pid,
        boot_id: String::new(),
        start_ticks: 0,
        exe_dev: 0,
        exe_ino: 0,
        spawn_id: Some(spawn_id.clone()),
        pidfs_ino: None,
    }
}

/// What happens between fork and exec. The standard library resets the signal mask itself.
fn prepare_in_child(command: &mut Command, limits: Vec<Limit>, confinement: Option<Confinement>) {
    let setup = move || {
        rustix::process::setsid()?;
        reset_signal_handlers();
        set_limit(Resource::Core, 0)?;
        for limit in &limits {
            match *limit {
                Limit::OpenFiles(n) => set_limit(Resource::Nofile, n)?,
                Limit::AddressSpace(n) => set_limit(Resource::As, n)?,
                Limit::LockedMemory(n) => set_limit(Resource::Memlock, n)?,
            }
        }
        close_inherited_on_exec();
        confinement.as_ref().map_or(Ok(()), Confinement::enter)
    };
    #[expect(unsafe_code, reason = "pre_exec is the only way to act between fork and exec")]
    // SAFETY: between fork and exec only async-signal-safe work is allowed: `setup` makes plain
    // system calls (setsid, signal, prlimit, close_range, fcntl, prctl, landlock_restrict_self, seccomp), allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(setup);
    }
}

fn set_limit(resource: Resource, value: u64) -> io::Result<()> {
    rustix::process::setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) })?;
    Ok(())
}

/// Handlers are lost at exec by themselves, but ignored signals stay ignored (`nohup`).
fn reset_signal_handlers() {
    const LAST_SIGNAL: i32 = 64;
    for number in 1..=LAST_SIGNAL {
        #[expect(unsafe_code, reason = "no safe wrapper sets a default disposition after fork")]
        // SAFETY: signal(2) with SIG_DFL is async-signal-safe; for numbers that may not be changed it
        // fails without effect.
        unsafe {
            libc::signal(number, libc::SIG_DFL);
        }
    }
}

/// An inherited lock descriptor would block the next manager for as long as the child lives.
/// Marked rather than closed: the standard library still reports an exec error through one of them.
fn close_inherited_on_exec() {
    const FIRST: libc::c_uint = 3;
    #[expect(unsafe_code, reason = "no safe wrapper for close_range")]
    // SAFETY: a plain system call that only sets flags on descriptors of this process.
    let marked =
        unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if marked == 0 {
        return;
    }
    // Kernels before 5.11: one by one, up to the limit.
    let limit = rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(65_536).min(65_536);
    for fd in 3..i32::try_from(limit).unwrap_or(65_536) {
        #[expect(unsafe_code, reason = "the descriptors are only known by number here")]
        // SAFETY: F_SETFD on a number that is not open fails with EBADF and has no other effect.
        unsafe {
            libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// POOLD-LAUNCH-002
    #[test]
    fn an_environment_that_cannot_be_seen_yet_is_known_all_the_same() {
        // Like one that was executed this moment: nothing in its environment names it.
        let mut spawned = Command::new("sleep").arg("60").env_clear().spawn().unwrap();
        let spawn_id = SpawnId::generate();
        let held = hold(&spawned, Path::new("sleep"), &spawn_id);
        let id = held.as_ref().map(|child| child.identity().spawn_id.clone()).ok();
        spawned.kill().unwrap();
        spawned.wait().unwrap();
        assert_eq!(id, Some(Some(spawn_id)));
    }
}
