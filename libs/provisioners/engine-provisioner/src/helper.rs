//! The only place that starts processes: short-lived build helpers from a closed list, in their own
//! process group, with a cleared environment, output to a log file, killed as a group on cancel.
//!
//! An engine can never be started from here: [`Tool`]'s entry for its binary is only made with
//! `--version`, `--help` and `--list-devices`, with which it prints and ends.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use provisioners_model_provisioner::Cancel;

use crate::host::Host;

/// In the environment of everything that works in a build directory. A group that outlives its manager
/// (`kill -9`) is found by it, even when its leader is gone: CMake dies and Ninja builds on.
const BUILD_DIR_VARIABLE: &str = "LLORCH_BUILD_DIR";

fn mark(dir: &Path) -> String {
    std::fs::canonicalize(dir).unwrap_or_else(|_| dir.to_path_buf()).to_string_lossy().into_owned()
}

/// Ends what an earlier manager left at work in `dir`. Only under the lock of that directory: then
/// nobody who lives has helpers there.
pub(crate) fn end_leftovers(dir: &Path) {
    if child::end_marked(BUILD_DIR_VARIABLE, &mark(dir)) {
        tracing::warn!(dir = %dir.display(), "the build of a manager that was killed still ran and was ended");
    }
}

/// Everything that may be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    Python,
    Cmake,
    Builder,
    Compiler,
    Git,
    Nvcc,
    PackageManager,
    EngineText,
    ModelVerifier,
}

/// Lines of output kept for an error.
const TAIL: usize = 40;
const MAX_LINE: u64 = 16 * 1024;
const POLL: Duration = Duration::from_millis(50);
/// From the request to stop until the whole group is killed.
const GRACE: Duration = Duration::from_millis(1000);

/// One run of a helper.
pub(crate) struct Helper<'a> {
    tool: Tool,
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    dir: Option<PathBuf>,
    log: Option<PathBuf>,
    cancel: &'a Cancel,
    limit: Option<Duration>,
}

/// Why a helper did not succeed.
#[derive(Debug)]
pub(crate) enum HelperError {
    Start { program: PathBuf, problem: String },
    Failed { program: PathBuf, status: String, tail: Vec<String>, log: Option<PathBuf> },
    Cancelled,
}

impl std::fmt::Display for HelperError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Start { program, problem } => write!(f, "cannot start {}: {problem}", program.display()),
            Self::Cancelled => f.write_str("interrupted"),
            Self::Failed { program, status, tail, log } => {
                write!(f, "{} ended with {status}", program.display())?;
                if let Some(log) = log {
                    write!(f, "; the whole output is in {}", log.display())?;
                }
                tail.iter().try_for_each(|line| write!(f, "\n{line}"))
            }
        }
    }
}

impl<'a> Helper<'a> {
    pub(crate) fn new(host: &Host, tool: Tool, program: impl Into<PathBuf>, cancel: &'a Cancel) -> Self {
        let env = host.helper_env().to_vec();
        let program = program.into();
        Self { tool, program, args: Vec::new(), env, dir: None, log: None, cancel, limit: None }
    }

    /// The engine's binary, for its version and nothing else.
    pub(crate) fn engine_version(host: &Host, binary: &Path, cancel: &'a Cancel) -> Self {
        let mut helper = Self::new(host, Tool::EngineText, binary, cancel);
        helper.args = vec!["--version".into()];
        helper
    }

    /// The engine's binary, for its help text and nothing else.
    pub(crate) fn engine_help(host: &Host, binary: &Path, cancel: &'a Cancel) -> Self {
        let mut helper = Self::new(host, Tool::EngineText, binary, cancel);
        helper.args = vec!["--help".into()];
        helper
    }

    /// The engine's binary, for the devices it can compute on and nothing else.
    pub(crate) fn engine_devices(host: &Host, binary: &Path, cancel: &'a Cancel) -> Self {
        let mut helper = Self::new(host, Tool::EngineText, binary, cancel);
        helper.args = vec!["--list-devices".into()];
        helper
    }

    pub(crate) fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// Marks it and all it starts as belonging to a build directory, see [`end_leftovers`].
    pub(crate) fn builds_in(self, dir: &Path) -> Self {
        let value = mark(dir);
        self.env(BUILD_DIR_VARIABLE, value)
    }

    pub(crate) fn dir(mut self, dir: &Path) -> Self {
        self.dir = Some(dir.to_path_buf());
        self
    }

    pub(crate) fn log(mut self, log: &Path) -> Self {
        self.log = Some(log.to_path_buf());
        self
    }

    pub(crate) fn limit(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Runs to the end and returns the last lines of its output, both streams as one.
    pub(crate) fn run(self, on_line: &mut dyn FnMut(&str)) -> Result<Vec<String>, HelperError> {
        tracing::debug!(tool = ?self.tool, program = %self.program.display(), args = ?self.args, "helper");
        if self.cancel.is_cancelled() {
            return Err(HelperError::Cancelled);
        }
        let start_error =
            |e: std::io::Error| HelperError::Start { program: self.program.clone(), problem: e.to_string() };
        let mut log = self.open_log().map_err(start_error)?;
        let (output, child) = self.spawn().map_err(start_error)?;
        let mut group = Group { child, ended: false };
        let lines = read_lines(output);
        let mut tail = std::collections::VecDeque::with_capacity(TAIL);
        let mut take = |line: String| {
            if let Some(log) = &mut log {
                // A full disk shows in the build itself; the log is for people.
                let _ = writeln!(log, "{line}");
            }
            on_line(&line);
            if tail.len() == TAIL {
                tail.pop_front();
            }
            tail.push_back(line);
        };
        let status = self.attend(&mut group, &lines, &mut take)?;
        let tail: Vec<String> = tail.into();
        if status.success() {
            return Ok(tail);
        }
        Err(HelperError::Failed { program: self.program, status: status.to_string(), tail, log: self.log })
    }

    fn attend(
        &self,
        group: &mut Group,
        lines: &Receiver<String>,
        take: &mut dyn FnMut(String),
    ) -> Result<ExitStatus, HelperError> {
        let started = Instant::now();
        let problem =
            |e: std::io::Error| HelperError::Start { program: self.program.clone(), problem: e.to_string() };
        loop {
            match lines.recv_timeout(POLL) {
                Ok(line) => take(line),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(POLL / 10),
            }
            if let Some(status) = group.child.try_wait().map_err(problem)? {
                group.ended = true;
                // Something it left behind may hold the pipe open; its output no longer matters.
                let until = Instant::now() + Duration::from_millis(500);
                while let Ok(line) = lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                    take(line);
                }
                return Ok(status);
            }
            if self.cancel.is_cancelled() {
                group.stop();
                return Err(HelperError::Cancelled);
            }
            if self.limit.is_some_and(|limit| started.elapsed() > limit) {
                group.stop();
                let status = format!("no answer within {:?}", self.limit.unwrap_or_default());
                return Err(HelperError::Failed {
                    program: self.program.clone(),
                    status,
                    tail: Vec::new(),
                    log: None,
                });
            }
        }
    }

    fn open_log(&self) -> std::io::Result<Option<File>> {
        let Some(path) = &self.log else { return Ok(None) };
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        File::options().create(true).append(true).open(path).map(Some)
    }

    fn spawn(&self) -> std::io::Result<(std::io::PipeReader, Child)> {
        let (reader, writer) = std::io::pipe()?;
        let mut command = Command::new(&self.program);
        command.args(&self.args).env_clear().envs(self.env.iter().map(|(k, v)| (k, v)));
        command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer).process_group(0);
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        // `command` owns our copies of the writing end; it is dropped here, so the pipe can end.
        Ok((reader, child::spawn_when_written(&mut command)?))
    }
}

/// The helper and all it started; killed when dropped before its end.
struct Group {
    child: Child,
    ended: bool,
}

impl Group {
    fn signal(&self, signal: Signal) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            // It may be gone already; that is what is wanted.
            let _ = killpg(Pid::from_raw(pid), signal);
        }
    }

    fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
        let until = Instant::now() + GRACE;
        while Instant::now() < until {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                break;
            }
            std::thread::sleep(POLL / 2);
        }
        self.signal(Signal::SIGKILL);
        let _ = self.child.wait();
        self.ended = true;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.ended {
            self.signal(Signal::SIGKILL);
            let _ = self.child.wait();
        }
    }
}

/// Lines as they come, through a bounded channel; the thread ends with the pipe or the receiver.
fn read_lines(output: std::io::PipeReader) -> Receiver<String> {
    let (sender, receiver) = sync_channel(1024);
    std::thread::spawn(move || {
        let mut reader = BufReader::new(output);
        loop {
            let mut line = Vec::new();
            match reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if sender.send(text).is_err() {
                return;
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;
    use config_loader::Env;

    fn shell<'a>(script: &str, cancel: &'a Cancel) -> Helper<'a> {
        let host = Host::new(&Env::new("/", [("PATH", "/usr/bin:/bin"), ("SECRET", "s")]));
        // `sh` stands for a compiler here; the list of tools stays closed.
        Helper::new(&host, Tool::Compiler, "/bin/sh", cancel).args(["-c", script])
    }

    #[test]
    fn both_streams_reach_the_caller_and_nothing_of_the_environment_leaks() {
        let mut seen = Vec::new();
        let cancel = Cancel::new();
        let run = shell("echo out; echo err >&2; echo \"[$SECRET]\"", &cancel);
        run.run(&mut |line| seen.push(line.to_owned())).unwrap();
        assert_eq!(seen, ["out", "err", "[]"]);
    }

    #[test]
    fn a_failure_has_the_last_forty_lines_and_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("x.log");
        let script = "i=0; while [ $i -lt 100 ]; do echo line $i; i=$((i+1)); done; exit 3";
        let error = shell(script, &Cancel::new()).log(&log).run(&mut |_| ()).unwrap_err();
        let HelperError::Failed { tail, .. } = &error else { panic!("{error}") };
        assert_eq!((tail.len(), tail[0].as_str(), tail[39].as_str()), (40, "line 60", "line 99"));
        assert!(
            error.to_string().contains("exit status: 3") && error.to_string().contains("x.log"),
            "{error}"
        );
        assert_eq!(std::fs::read_to_string(&log).unwrap().lines().count(), 100);
    }

    #[test]
    fn what_a_killed_manager_left_at_work_in_a_build_directory_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        let pid_file = dir.path().join("pid");
        // The leader ends at once and its group works on, as CMake and Ninja do after a `kill -9`.
        let script = format!(
            "sh -c 'echo $$ > {0}.new; mv {0}.new {0}; sleep 60' > /dev/null 2>&1 & echo",
            pid_file.display()
        );
        shell(&script, &Cancel::new()).builds_in(dir.path()).run(&mut |_| ()).unwrap();
        let until = Instant::now() + Duration::from_secs(30);
        while !pid_file.exists() && Instant::now() < until {
            std::thread::yield_now();
        }
        let pid = std::fs::read_to_string(&pid_file).unwrap();
        let lives = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
            !stat.is_empty() && !stat.contains(") Z ")
        };
        end_leftovers(other.path());
        assert!(lives(), "another directory's build is left alone");
        end_leftovers(dir.path());
        assert!(!lives());
    }

    /// EPROV-010
    #[test]
    fn cancel_kills_the_whole_group_within_two_seconds() {
        // A machine that is busy can make any one of them slow.
        let times: Vec<Duration> = (0..3).map(|_| time_to_kill()).collect();
        assert!(times.iter().any(|took| *took < Duration::from_secs(2)), "{times:?}");
    }

    fn time_to_kill() -> Duration {
        let dir = tempfile::tempdir().unwrap();
        let pid_file = dir.path().join("pid");
        let script = format!(
            "trap '' TERM; sh -c 'trap \"\" TERM; echo $$ > {0}.new; mv {0}.new {0}; sleep 60' & wait; sleep 60",
            pid_file.display()
        );
        let cancel = Cancel::new();
        let remote = cancel.clone();
        let file = pid_file.clone();
        let watcher = std::thread::spawn(move || {
            while !file.exists() {
                std::thread::yield_now();
            }
            remote.cancel();
            Instant::now()
        });
        let error = shell(&script, &cancel).run(&mut |_| ()).unwrap_err();
        let asked = watcher.join().unwrap();
        assert!(matches!(error, HelperError::Cancelled), "{error}");
        let took = asked.elapsed();
        let pid: i32 = std::fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
        let gone = || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        };
        let until = Instant::now() + Duration::from_secs(30);
        while !gone() && Instant::now() < until {
            std::thread::yield_now();
        }
        assert!(gone(), "the grandchild {pid} still runs");
        took
    }
}
