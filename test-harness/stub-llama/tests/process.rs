//! The program: how it starts, dies and misbehaves.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, ChildStderr, Command, Stdio};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

struct Process {
    child: Child,
    log: BufReader<ChildStderr>,
}

impl Process {
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_stub-llama"))
            .args(["--host", "127.0.0.1", "--port", "0"])
            .args(arguments)
            .process_group(0)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        Self { child, log }
    }

    /// Reads the log up to a line with `text`.
    fn until(&mut self, text: &str) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert!(self.log.read_line(&mut line).unwrap() > 0, "the log ended before {text:?}");
            if line.contains(text) {
                return line.trim().to_owned();
            }
        }
    }

    fn address(&mut self) -> String {
        self.until("listening on http://").rsplit('/').next().unwrap().to_owned()
    }

    fn loaded(&mut self) -> String {
        let address = self.address();
        self.until("model loaded");
        address
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The group: grandchildren and thieves too.
        let _ = killpg(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

fn complete(address: &str) -> String {
    let body = r#"{"prompt":"x","n_predict":9,"stream":true}"#;
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
    write!(
        stream,
        "POST /completion HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    // It dies mid-answer: what came before is the answer.
    let _ = stream.read_to_string(&mut answer);
    answer
}

#[test]
fn sigterm_ends_a_loaded_engine_with_code_0() {
    let mut process = Process::start(&[]);
    process.until("model loaded");
    process.signal(Signal::SIGTERM);
    assert_eq!(process.child.wait().unwrap().code(), Some(0));
}

#[test]
fn sigterm_kills_an_engine_that_loads() {
    let mut process = Process::start(&["--stub-load-ms", "60000"]);
    process.address();
    process.signal(Signal::SIGTERM);
    assert_eq!(process.child.wait().unwrap().signal(), Some(15));
}

#[test]
fn an_engine_that_ignores_sigterm_serves_on() {
    let mut process = Process::start(&["--stub-ignore-term"]);
    let address = process.loaded();
    process.signal(Signal::SIGTERM);
    assert!(complete(&address).contains("\"stop\":true"));
    assert_eq!(process.child.try_wait().unwrap(), None);
}

#[test]
fn an_engine_dies_at_its_token_by_exit_or_by_abort() {
    for (switch, code, signal) in
        [("--stub-exit-after=3", Some(1), None), ("--stub-crash-after=3", None, Some(6))]
    {
        let mut process = Process::start(&[switch]);
        let address = process.loaded();
        let answer = complete(&address);
        assert_eq!(answer.matches("\"stop\":false").count(), 3, "{answer}");
        let status = process.child.wait().unwrap();
        assert_eq!((status.code(), status.signal()), (code, signal));
    }
}

#[test]
fn an_engine_that_cannot_start_says_why_and_exits_with_its_code() {
    let mut process = Process::start(&["--stub-say", "out of memory", "--stub-exit-at-start", "7"]);
    process.until("out of memory");
    assert_eq!(process.child.wait().unwrap().code(), Some(7));
    let mut process = Process::start(&["--stub-nonsense"]);
    process.until("there is no switch --stub-nonsense");
    assert_eq!(process.child.wait().unwrap().code(), Some(1));
}

#[test]
fn a_grandchild_outlives_the_engine() {
    let mut process = Process::start(&["--stub-grandchild"]);
    process.address();
    let children = format!("/proc/{0}/task/{0}/children", process.child.id());
    let grandchild: i32 = std::fs::read_to_string(children).unwrap().trim().parse().unwrap();
    process.signal(Signal::SIGKILL);
    process.child.wait().unwrap();
    kill(Pid::from_raw(grandchild), Signal::SIGKILL).unwrap();
}

#[test]
fn a_stolen_port_is_served_by_another_process() {
    let mut process = Process::start(&["--stub-port-steal"]);
    let address = process.loaded();
    assert!(complete(&address).contains("\"stop\":true"));
    process.signal(Signal::SIGKILL);
    process.child.wait().unwrap();
    assert!(complete(&address).contains("\"stop\":true"), "the thief lives on");
}

#[test]
fn other_crates_find_the_program_and_it_is_this_one() {
    let found = stub_llama::binary().unwrap();
    assert_eq!(found, std::path::Path::new(env!("CARGO_BIN_EXE_stub-llama")));
    let output = Command::new(found).arg("--version").output().unwrap();
    assert!(String::from_utf8(output.stderr).unwrap().starts_with("version: "));
}
