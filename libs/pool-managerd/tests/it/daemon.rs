//! The program itself: a real process, its exit codes, and its death by `kill -9`.

use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use wire::pool::PoolList;
use wire::{ConfigView, Handoff};

use crate::harness::{DEADLINE, engines_of, signal, within};

struct Daemon {
    process: Child,
    log: std::path::PathBuf,
}

impl Daemon {
    fn start(dir: &Path, name: &str) -> Self {
        let log = dir.join(name);
        let process = Command::new(env!("CARGO_BIN_EXE_pool-managerd"))
            .arg("--config")
            .arg(dir.join("config.yaml"))
            .current_dir(dir)
            .env_clear()
            .env("HOME", dir)
            .env("PATH", std::env::var_os("PATH").unwrap())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Self { process, log }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    async fn says(&self, what: &str) {
        let end = Instant::now() + DEADLINE;
        while !self.log().contains(what) {
            assert!(Instant::now() < end, "never said {what:?}: {}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The configuration file as its API shows it, once it is so.
    async fn configuration(&self, dir: &Path, is: fn(&ConfigView) -> bool) -> ConfigView {
        let log = self.log();
        let addr = log.split("\"addr\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
        let token = std::fs::read_to_string(dir.join("runtime/pool-managerd.token")).unwrap();
        let http = test_harness_e2e_haiku::Client::pool_managerd();
        let end = Instant::now() + DEADLINE;
        loop {
            let asked = http.get(format!("http://{addr}/v2/pools")).bearer_auth(token.trim());
            let list: PoolList = asked.send().await.unwrap().json().await.unwrap();
            match list.configuration.filter(is) {
                Some(view) => return view,
                None => assert!(Instant::now() < end, "{}", self.log()),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn ended(&mut self) -> ExitStatus {
        let end = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < end, "still runs: {}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _gone_already = self.process.kill();
        let _reaped = self.process.wait();
    }
}

/// A directory with a configuration whose engine is the stub.
pub(crate) fn configured(listen: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let stub = stub_llama::binary().expect("stub-llama builds");
    let config = format!(
        "paths: {{ runtime: runtime, cache: cache }}\n\
         pool_managerd: {{ listen: \"{listen}\" }}\n\
         pools:\n  - id: p\n    model: builtin:haiku\n    provisioning:\n      gpu: off\n      sources:\n        \
         - path: {{ binary: {} }}\n",
        stub.display()
    );
    std::fs::write(dir.path().join("config.yaml"), config).unwrap();
    dir
}

pub(crate) fn handoff(dir: &Path) -> Option<Handoff> {
    serde_json::from_slice(&std::fs::read(dir.join("runtime/engines/p.r0.json")).ok()?).ok()
}

#[tokio::test]
async fn an_engine_survives_the_kill_of_its_manager_and_is_adopted_by_the_next() {
    let dir = configured("127.0.0.1:0");
    let dir = dir.path();
    let mut first = Daemon::start(dir, "first.log");
    first.says("\"ready\"").await;
    let before = handoff(dir).unwrap();
    first.process.kill().unwrap();
    first.ended().await;
    assert_eq!(engines_of(&dir.join("runtime")), [before.pid.unwrap()], "the engine lives on");

    let mut second = Daemon::start(dir, "second.log");
    second.says("adopted an engine").await;
    assert_eq!(handoff(dir), Some(before), "an engine started anew would have another PID and another life");

    let mut third = Daemon::start(dir, "third.log");
    assert_eq!(third.ended().await.code(), Some(100));
    assert!(third.log().contains(&format!("PID {}", second.process.id())), "{}", third.log());

    signal(second.process.id(), Signal::TERM);
    assert_eq!(second.ended().await.code(), Some(0), "{}", second.log());
    within(DEADLINE, "nothing is left", || engines_of(&dir.join("runtime")).is_empty()).await;
    assert_eq!(handoff(dir), None);
}

#[tokio::test]
async fn a_taken_port_and_a_bad_configuration_have_their_own_exit_codes() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = configured(&taken.local_addr().unwrap().to_string());
    let mut daemon = Daemon::start(dir.path(), "port.log");
    assert_eq!(daemon.ended().await.code(), Some(75));
    let log = daemon.log();
    assert!(log.contains(&taken.local_addr().unwrap().to_string()), "{log}");
    assert!(log.contains(&format!("PID {}", std::process::id())), "the holder is named: {log}");

    let good = std::fs::read_to_string(dir.path().join("config.yaml")).unwrap();
    std::fs::write(
        dir.path().join("config.yaml"),
        good.replace("- id: p\n", "- id: p\n    flags: [--bogus]\n"),
    )
    .unwrap();
    let mut daemon = Daemon::start(dir.path(), "flag.log");
    assert_eq!(daemon.ended().await.code(), Some(2), "{}", daemon.log());
    assert!(daemon.log().contains("pools[0] (p): flags: --bogus"), "{}", daemon.log());

    std::fs::write(dir.path().join("config.yaml"), "pols: []\n").unwrap();
    let mut daemon = Daemon::start(dir.path(), "config.log");
    assert_eq!(daemon.ended().await.code(), Some(2));
    assert!(daemon.log().contains("pols"), "{}", daemon.log());
}

pub(crate) fn edit(dir: &Path, edit: impl FnOnce(String) -> String) {
    let file = dir.join("config.yaml");
    std::fs::write(&file, edit(std::fs::read_to_string(&file).unwrap())).unwrap();
}

/// POOLD-CONFIG-002, POOLD-CONFIG-004
#[tokio::test]
async fn the_file_is_followed_by_itself_and_at_a_hangup_and_a_bad_one_changes_nothing() {
    let dir = configured("127.0.0.1:0");
    let dir = dir.path();
    let mut daemon = Daemon::start(dir, "log");
    daemon.says("\"ready\"").await;
    let before = handoff(dir).unwrap();

    edit(dir, |text| text.replace("- id: p\n", "- id: p\n    ctx: 1024\n"));
    daemon.says("configuration: p: rolling (ctx)").await;
    let moved = || handoff(dir).is_some_and(|h| h.generation > before.generation);
    within(DEADLINE, "the new engine serves", moved).await;
    daemon.says("succeeded: rolling (ctx)").await;
    let serves = handoff(dir).unwrap().generation;

    edit(dir, |text| text.replace("ctx: 1024", "ctx: lots"));
    signal(daemon.process.id(), Signal::HUP);
    daemon.says("the one before stays in force").await;
    assert!(daemon.log().contains("pools[0].ctx") && daemon.log().contains("lots"), "{}", daemon.log());
    assert_eq!(handoff(dir).unwrap().generation, serves);

    edit(dir, |text| {
        text.replace("ctx: lots", "ctx: 1024\n    aliases: [poet]").replace("cache: cache", "cache: other")
    });
    signal(daemon.process.id(), Signal::HUP);
    daemon.says("configuration: p: route only (aliases)").await;
    daemon.says("what changed in paths is read when pool-managerd starts again").await;
    assert_eq!(handoff(dir).unwrap().generation, serves);
    assert_ne!(handoff(dir).unwrap().pid, before.pid);

    signal(daemon.process.id(), Signal::TERM);
    assert_eq!(daemon.ended().await.code(), Some(0), "{}", daemon.log());
}

/// POOLD-CONFIG-002
#[tokio::test]
async fn why_a_file_is_not_followed_is_in_the_api_until_it_is() {
    let dir = configured("127.0.0.1:0");
    let dir = dir.path();
    let mut daemon = Daemon::start(dir, "log");
    daemon.says("\"ready\"").await;
    let shown = |are: fn(&ConfigView) -> bool| daemon.configuration(dir, are);
    let at_first = shown(|_| true).await;
    assert!(at_first.file.ends_with("config.yaml") && at_first.refused.is_none(), "{at_first:?}");

    edit(dir, |text| text.replace("- id: p\n", "- id: p\n    ctx: lots\n"));
    signal(daemon.process.id(), Signal::HUP);
    let refused = shown(|view| view.refused.is_some()).await.refused.unwrap();
    assert!(refused.contains("pools[0].ctx") && refused.contains("lots"), "{refused}");

    edit(dir, |text| text.replace("    ctx: lots\n", "").replace("cache: cache", "cache: other"));
    signal(daemon.process.id(), Signal::HUP);
    let followed = shown(|view| view.refused.is_none()).await;
    assert_eq!(followed.waits, ["paths"]);
    signal(daemon.process.id(), Signal::TERM);
    assert_eq!(daemon.ended().await.code(), Some(0), "{}", daemon.log());
}

/// POOLD-STOP-003
#[tokio::test]
async fn a_signal_that_arrives_twice_at_once_ends_it_in_order_and_a_second_one_at_once() {
    let dir = configured("127.0.0.1:0");
    let dir = dir.path();
    let mut daemon = Daemon::start(dir, "first.log");
    daemon.says("\"ready\"").await;
    // As `timeout` sends it: to its child, and then to its group.
    signal(daemon.process.id(), Signal::TERM);
    signal(daemon.process.id(), Signal::TERM);
    assert_eq!(daemon.ended().await.code(), Some(0), "{}", daemon.log());
    assert_eq!(handoff(dir), None);

    edit(dir, |text| {
        text.replace("    provisioning:", "    env: { STUB_IGNORE_TERM: '1' }\n    provisioning:")
    });
    let mut daemon = Daemon::start(dir, "second.log");
    daemon.says("\"ready\"").await;
    signal(daemon.process.id(), Signal::TERM);
    signal(daemon.process.id(), Signal::INT);
    assert_eq!(daemon.ended().await.code(), Some(130), "{}", daemon.log());
    assert!(!engines_of(&dir.join("runtime")).is_empty(), "its engine is left for the next start");
    let mut last = Daemon::start(dir, "third.log");
    last.says("adopted an engine").await;
    signal(last.process.id(), Signal::TERM);
    assert_eq!(last.ended().await.code(), Some(0), "{}", last.log());
}
