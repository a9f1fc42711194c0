//! The program under a service manager: what it is told, and that the watchdog starves with the
//! supervision.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::daemon::configured;
use crate::harness::{DEADLINE, signal};

struct Service {
    process: std::process::Child,
    heard: UnixDatagram,
}

impl Service {
    fn start(dir: &Path) -> Self {
        let socket = dir.join("notify");
        let heard = UnixDatagram::bind(&socket).unwrap();
        heard.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_pool-managerd"))
            .arg("--config")
            .arg(dir.join("config.yaml"))
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
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dist/pool-managerd.service");
    let unit = std::fs::read_to_string(unit).unwrap();
    let says = |line: &str| assert!(unit.lines().any(|l| l == line), "{line} is missing");
    says("Type=notify");
    says("KillMode=process");
    says("ExecReload=/bin/kill -HUP $MAINPID");
    says("RestartPreventExitStatus=2 100");
    assert!(unit.contains("WatchdogSec="));
}
