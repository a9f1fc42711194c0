//! A daemon as a child process: what it says goes to a file, and it is asked to end when dropped.

use std::fs::File;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait::until;

/// A running program.
pub struct Process {
    child: Child,
    said: PathBuf,
}

impl Process {
    /// Starts `command` with stdout and stderr in `said`.
    pub fn start(mut command: Command, said: PathBuf) -> Result<Self> {
        let file = File::create(&said).with_context(|| format!("making {}", said.display()))?;
        let both = file.try_clone().context("sharing the output file")?;
        let child = command.stdin(Stdio::null()).stdout(both).stderr(file).spawn();
        let child = child.with_context(|| format!("starting {command:?}"))?;
        Ok(Self { child, said })
    }

    /// Everything it said so far.
    #[must_use]
    pub fn said(&self) -> String {
        read(&self.said)
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.pid()?, signal).context("sending a signal")
    }

    /// Waits for its end, and says how long that took.
    pub async fn ended(&mut self) -> Result<(ExitStatus, Duration)> {
        let mut status = None;
        let child = &mut self.child;
        let took = until("the process ends", || {
            let ended = child.try_wait().context("waiting for the process");
            let holds = ended.map(|ended| {
                status = status.or(ended);
                status.is_some()
            });
            async { holds }
        });
        let took = took.await?;
        Ok((status.unwrap_or(ExitStatus::from_raw(0)), took))
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Asks it to end and waits for that, as the end of a scenario does: the drop below would make every
    /// other scenario wait, too.
    pub async fn dismiss(mut self) -> Result<()> {
        if self.runs() {
            self.signal(Signal::SIGTERM)?;
            self.ended().await?;
        }
        Ok(())
    }

    /// Its process id.
    pub fn pid(&self) -> Result<Pid> {
        Ok(Pid::from_raw(i32::try_from(self.child.id()).context("the pid does not fit")?))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let (Ok(None), Ok(pid)) = (self.child.try_wait(), self.pid()) {
            // TERM first: what is killed leaves its engines for adoption, as it should.
            let _ = kill(pid, Signal::SIGTERM);
            let _ = self.child.wait();
        }
    }
}

pub(crate) fn read(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}
