//! A running orchestratord of the test's own: its own runtime directory, any free port, the shared
//! cache of engines.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// An engine that is cached loads in under a second; a cold one is built first.
const READY: Duration = Duration::from_secs(45 * 60);
const STOP: Duration = Duration::from_secs(30);

/// orchestratord as a child process; stopped when dropped.
pub struct Daemon {
    child: Child,
    base: String,
    /// What it printed on stdout until it was ready.
    pub banner: String,
    dir: TempDir,
}

impl Daemon {
    /// Starts it with zero config and waits for its banner.
    pub fn start() -> Result<Self> {
        Self::start_binary(&crate::built_binary("orchestratord")?, &[])
    }

    /// The same of a given binary, with further arguments.
    pub fn start_binary(binary: &Path, args: &[&str]) -> Result<Self> {
        Self::start_in(TempDir::new().context("making a directory for the daemon")?, binary, args)
    }

    /// Kills it with SIGKILL and starts another one, with zero config, on what it left.
    pub fn kill_and_start(mut self) -> Result<Self> {
        self.child.kill().context("killing orchestratord")?;
        self.child.wait().context("waiting for orchestratord")?;
        let empty = TempDir::new().context("making a directory")?;
        let dir = std::mem::replace(&mut self.dir, empty);
        Self::start_in(dir, &crate::built_binary("orchestratord")?, &[])
    }

    fn start_in(dir: TempDir, binary: &Path, args: &[&str]) -> Result<Self> {
        let log = File::create(dir.path().join("stderr.log")).context("making the daemon's log")?;
        let mut child = Command::new(binary)
            .args(args)
            .env("ORCHD_ADDR", "127.0.0.1:0")
            .env("ORCHD_RUNTIME_DIR", dir.path().join("runtime"))
            .env_remove("ORCHD_LLAMACPP_URL")
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("starting orchestratord")?;
        let stdout = child.stdout.take().context("taking orchestratord's stdout")?;
        match read_banner(stdout) {
            Ok((base, banner)) => Ok(Self { child, base, banner, dir }),
            Err(error) => {
                let _ = child.kill();
                let log = std::fs::read_to_string(dir.path().join("stderr.log")).unwrap_or_default();
                Err(error.context(format!("orchestratord did not become ready; it said:\n{log}")))
            }
        }
    }

    /// `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Its runtime directory.
    #[must_use]
    pub fn runtime(&self) -> PathBuf {
        self.dir.path().join("runtime")
    }

    /// Everything it logged so far.
    pub fn log(&self) -> Result<String> {
        read(&self.dir.path().join("stderr.log"))
    }

    /// Everything its engines logged so far.
    pub fn engine_logs(&self) -> Result<String> {
        let mut all = String::new();
        for entry in std::fs::read_dir(self.runtime().join("run")).context("listing the run directory")? {
            let path = entry.context("listing the run directory")?.path();
            if path.extension().is_some_and(|extension| extension == "log") {
                all.push_str(&read(&path)?);
            }
        }
        Ok(all)
    }

    /// Asks it to stop and waits; says how long it took.
    pub fn stop(mut self) -> Result<Duration> {
        let asked = Instant::now();
        let pid = Pid::from_raw(i32::try_from(self.child.id()).context("the pid does not fit")?);
        kill(pid, Signal::SIGTERM).context("sending TERM to orchestratord")?;
        while asked.elapsed() < STOP {
            if let Some(status) = self.child.try_wait().context("waiting for orchestratord")? {
                ensure!(status.success(), "orchestratord ended with {status}; it said:\n{}", self.log()?);
                return Ok(asked.elapsed());
            }
            std::thread::yield_now();
        }
        bail!("orchestratord did not stop within {STOP:?}")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let alive = matches!(self.child.try_wait(), Ok(None));
        if let (true, Ok(pid)) = (alive, i32::try_from(self.child.id())) {
            // TERM first: a killed orchestratord leaves its engine for adoption, as it should.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
            let _ = self.child.wait();
        }
    }
}

fn read(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Reads stdout up to the line with `curl`; then keeps draining it so that the daemon never blocks.
fn read_banner(stdout: std::process::ChildStdout) -> Result<(String, String)> {
    let (sender, receiver) = std::sync::mpsc::sync_channel(64);
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let _ = sender.try_send(line);
        }
    });
    let deadline = Instant::now() + READY;
    let (mut base, mut banner) = (None, String::new());
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let line = receiver.recv_timeout(left).context("waiting for orchestratord's banner")?;
        banner.push_str(&line);
        banner.push('\n');
        if let Some(rest) = line.trim().strip_prefix("base URL") {
            base = rest.split_whitespace().next().map(str::to_owned);
        }
        if line.contains("curl -N") {
            return Ok((base.context("the banner names no base URL")?, banner));
        }
    }
}
