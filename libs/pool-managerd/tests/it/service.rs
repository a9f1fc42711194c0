//! The program under a service manager: what it is told, and that a restart leaves the engines running. That
//! the watchdog starves with the supervision is tested where its rounds are (`app.rs`, `board.rs`).

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::daemon::{configured, edit, handoff};
use crate::harness::{DEADLINE, NoEngineLeft, engines_of, signal, within};

struct Service {
    process: std::process::Child,
    heard: UnixDatagram,
}

/// The unit that is shipped.
fn unit() -> String {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dist/pool-managerd.service");
    std::fs::read_to_string(unit).unwrap()
}

/// What the unit has behind a key, line by line.
fn lines<'a>(unit: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    unit.lines().filter_map(move |line| line.strip_prefix(key)?.strip_prefix('='))
}

impl Service {
    /// As the unit says, but for the two paths that it says are to be adjusted.
    fn start(dir: &Path) -> Self {
        let (unit, socket) = (unit(), dir.join("notify"));
        let mut words = lines(&unit, "ExecStart").next().unwrap().split_whitespace();
        assert!(words.next().unwrap().ends_with("/pool-managerd"));
        let config = dir.join("config.yaml");
        let words = words.map(|word| if word.starts_with('/') { config.as_os_str() } else { word.as_ref() });
        let environment = lines(&unit, "Environment").map(|set| set.split_once('=').unwrap());
        let _of_the_one_before = std::fs::remove_file(&socket);
        let heard = UnixDatagram::bind(&socket).unwrap();
        heard.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_pool-managerd"))
            .args(words)
            .envs(environment)
            .current_dir(dir)
            .env("HOME", dir)
            .env("NOTIFY_SOCKET", &socket)
            .env("WATCHDOG_USEC", "200000")
            .env_remove("WATCHDOG_PID")
            .stderr(std::fs::File::create(dir.join("log")).unwrap())
            .spawn()
            .unwrap();
        Self { process, heard }
    }

    fn hears(&self, what: &str) {
        let (end, mut all) = (Instant::now() + DEADLINE, String::new());
        loop {
            let mut message = [0; 1024];
            if let Ok(length) = self.heard.recv(&mut message) {
                let text = String::from_utf8_lossy(&message[..length]).into_owned();
                if text.lines().any(|line| line == what) {
                    return;
                }
                all.push_str(&text);
            }
            assert!(Instant::now() < end, "never heard {what}: {all}");
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _gone_already = self.process.kill();
        let _reaped = self.process.wait();
    }
}

/// POOLD-SERVICE-001
#[test]
fn a_service_manager_is_told_when_it_is_ready_while_it_supervises_and_when_it_stops() {
    let dir = configured("127.0.0.1:0");
    let mut service = Service::start(dir.path());
    service.hears("READY=1");
    service.hears("WATCHDOG=1");
    service.hears("WATCHDOG=1");
    signal(service.process.id(), Signal::TERM);
    service.hears("STOPPING=1");
    assert_eq!(service.process.wait().unwrap().code(), Some(0));
}

/// POOLD-SERVICE-001
#[test]
fn the_unit_says_what_the_daemon_does() {
    let unit = unit();
    let says = |line: &str| assert!(unit.lines().any(|l| l == line), "{line} is missing");
    says("Type=notify");
    says("KillMode=process");
    says("ExecReload=/bin/kill -HUP $MAINPID");
    says("RestartPreventExitStatus=2 100");
    assert!(unit.contains("WatchdogSec="));
}

/// POOLD-SERVICE-002
#[tokio::test]
async fn a_restart_of_the_unit_leaves_every_engine_running_but_where_a_pool_says_otherwise() {
    let dir = configured("127.0.0.1:0");
    let dir = dir.path();
    let _on_failure = NoEngineLeft(dir.join("runtime"));
    let mut first = Service::start(dir);
    within(DEADLINE, "the engine serves", || handoff(dir).is_some()).await;
    let claim = handoff(dir);
    let engine = [claim.as_ref().unwrap().pid.unwrap()];
    signal(first.process.id(), Signal::TERM);
    assert_eq!(first.process.wait().unwrap().code(), Some(0));
    assert_eq!(engines_of(&dir.join("runtime")), engine, "it went with its manager");

    edit(dir, |text| text.replace("- id: p\n", "- id: p\n    on_exit: stop\n"));
    let mut second = Service::start(dir);
    second.hears("READY=1");
    assert_eq!(engines_of(&dir.join("runtime")), engine);
    assert_eq!(handoff(dir), claim, "it was published anew");
    signal(second.process.id(), Signal::TERM);
    assert_eq!(second.process.wait().unwrap().code(), Some(0));
    assert!(engines_of(&dir.join("runtime")).is_empty(), "its pool says that it ends");
}
