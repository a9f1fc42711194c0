//! The built binary and its configuration file, which changes while it runs: names, pools and engines
//! follow, and nothing else moves. And how its unit starts and ends it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test helper fails by panicking")]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use test_harness_e2e_haiku::Client;

struct Daemon {
    child: Child,
    base: String,
    dir: Arc<tempfile::TempDir>,
    http: Client,
}

fn pool(id: &str, edit: Value) -> Value {
    let stub = stub_llama::binary().unwrap();
    let mut pool = json!({
        "id": id, "model": "builtin:haiku",
        "provisioning": {"gpu": "off", "sources": [{"path": {"binary": stub}}]},
    });
    pool.as_object_mut().unwrap().extend(edit.as_object().unwrap().clone());
    pool
}

impl Daemon {
    fn start(pools: &[Value]) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        write(dir.path(), pools, &json!({}));
        Self::start_in(dir, &[])
    }

    fn start_in(dir: Arc<tempfile::TempDir>, environment: &[(&str, &str)]) -> Self {
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_orchestratord"))
            .arg("--config")
            .arg(dir.path().join("config.json"))
            .env_remove("RUST_LOG")
            .env_remove("LLAMA_ORCH_TOKEN")
            .env("ORCHD_ADDR", "127.0.0.1:0")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let http = Client::orchestratord();
        let mut daemon = Self { child, base: String::new(), dir, http };
        let line = daemon.says("\"addr\"");
        let line: Value = serde_json::from_str(&line).unwrap();
        daemon.base = format!("http://{}", line["fields"]["addr"].as_str().unwrap());
        daemon
    }

    fn write(&self, pools: &[Value], more: &Value) {
        write(self.dir.path(), pools, more);
    }

    /// The first line of its log with these words, once it is there.
    fn says(&self, words: &str) -> String {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap();
            if let Some(line) = log.lines().find(|line| line.contains(words)) {
                return line.to_owned();
            }
            assert!(Instant::now() < end, "never said {words}: {log}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    async fn get(&self, path: &str) -> Value {
        self.http.get(format!("{}{path}", self.base)).send().await.unwrap().json().await.unwrap()
    }

    /// The status of a chat with this model.
    async fn chat(&self, model: &str) -> u16 {
        let body = json!({"model": model, "max_tokens": 3, "messages": [{"role": "user", "content": "x"}]});
        let request = self.http.post(format!("{}/v1/chat/completions", self.base)).json(&body);
        request.send().await.unwrap().status().as_u16()
    }

    async fn until_chat(&self, model: &str, status: u16) {
        let end = Instant::now() + Duration::from_secs(30);
        while self.chat(model).await != status {
            assert!(Instant::now() < end, "a chat with {model} is never {status}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// As [`engines`](Self::engines), once there are those of just these pools and all of them run: what
    /// is shown of them is a moment old.
    async fn engines_of(&self, pools: &[&str]) -> Vec<(String, u64)> {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let engines = self.engines().await;
            if engines.iter().map(|(id, _)| id.as_str()).eq(pools.iter().copied())
                && engines.iter().all(|(_, pid)| *pid > 0)
            {
                return engines;
            }
            assert!(Instant::now() < end, "{engines:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The configuration file as it is shown, once it is so.
    async fn until_shown(&self, is: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let shown = self.get("/v2/pools").await["configuration"].clone();
            if is(&shown) {
                return shown;
            }
            assert!(Instant::now() < end, "{shown}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Pool and process of every engine.
    async fn engines(&self) -> Vec<(String, u64)> {
        let view = self.get("/v2/pools").await;
        let pools = view["pools"].as_array().unwrap().iter();
        pools
            .map(|pool| {
                (pool["id"].as_str().unwrap().to_owned(), pool["replicas"][0]["pid"].as_u64().unwrap_or(0))
            })
            .collect()
    }
}

fn write(dir: &Path, pools: &[Value], more: &Value) {
    let mut config = json!({
        "log": {"format": "json"},
        "paths": {"runtime": dir.join("runtime"), "cache": dir.join("cache")},
        "pools": pools,
    });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.signal(Signal::TERM);
        let _gone = self.child.wait();
    }
}

/// An engine that is to outlive its manager must not outlive a test that fails.
struct Engine(u64);

impl Engine {
    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.0).unwrap()).unwrap()
    }

    fn runs(&self) -> bool {
        rustix::process::test_kill_process(self.pid()).is_ok()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _gone_already = kill_process(self.pid(), Signal::KILL);
        }
    }
}

/// POOLD-SERVICE-002
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_as_the_unit_does_it_leaves_the_engine_running_and_finds_it_again() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dist/orchestratord.service");
    let unit = std::fs::read_to_string(unit).unwrap();
    for line in ["Type=exec", "KillMode=process", "ExecReload=/bin/kill -HUP $MAINPID"] {
        assert!(unit.lines().any(|l| l == line), "{line} is missing");
    }
    let command = "ExecStart=/usr/local/bin/orchestratord --config /etc/llama-orch/config.yaml";
    assert!(unit.lines().any(|l| l == command), "it is started otherwise than here");
    let set = unit.lines().filter_map(|line| line.strip_prefix("Environment="));
    let environment: Vec<_> = set.map(|set| set.split_once('=').unwrap()).collect();

    let dir = Arc::new(tempfile::tempdir().unwrap());
    write(dir.path(), &[pool("p", json!({}))], &json!({}));
    let first = Daemon::start_in(Arc::clone(&dir), &environment);
    first.until_chat("p", 200).await;
    let engine = Engine(first.engines_of(&["p"]).await[0].1);
    drop(first);
    assert!(engine.runs(), "it went with its manager");

    let second = Daemon::start_in(Arc::clone(&dir), &environment);
    second.until_chat("p", 200).await;
    assert_eq!(second.engines_of(&["p"]).await, [("p".to_owned(), engine.0)]);
    drop(second);
    let by_hand = Daemon::start_in(dir, &[]);
    by_hand.until_chat("p", 200).await;
    assert!(engine.runs());
    drop(by_hand);
    let end = Instant::now() + Duration::from_secs(30);
    while engine.runs() {
        assert!(Instant::now() < end, "without the unit it ends as its pool says by default");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// ORCHD-CONFIG-001
#[tokio::test(flavor = "multi_thread")]
async fn names_and_pools_follow_the_file_and_engines_that_it_does_not_concern_stay() {
    let daemon = Daemon::start(&[pool("p", json!({"aliases": ["old"]})), pool("q", json!({}))]);
    daemon.until_chat("p", 200).await;
    daemon.until_chat("q", 200).await;
    assert_eq!((daemon.chat("old").await, daemon.chat("new").await), (200, 404));
    let before = daemon.engines_of(&["p", "q"]).await;

    daemon.write(&[pool("p", json!({"aliases": ["new"]})), pool("q", json!({}))], &json!({}));
    daemon.says("configuration: p: route only (aliases)");
    daemon.until_chat("new", 200).await;
    assert_eq!(daemon.chat("old").await, 404);
    assert_eq!(daemon.engines().await, before);

    // `q` goes, `r` comes, `p` is another kind of pool; at a hangup without any waiting.
    let embeds = pool("p", json!({"kind": "embedding", "aliases": ["new"]}));
    daemon.write(&[embeds, pool("r", json!({}))], &json!({"limits": {"default": {"concurrent_tasks": 9}}}));
    daemon.signal(Signal::HUP);
    daemon.says("configuration: q: removed");
    daemon.says("what changed in limits is read when orchestratord starts again");
    daemon.until_chat("q", 404).await;
    daemon.until_chat("r", 200).await;
    assert_eq!(daemon.chat("new").await, 400, "it embeds now");
    daemon.engines_of(&["p", "r"]).await;
}

/// ORCHD-CONFIG-002
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_used_changes_nothing_and_says_why() {
    let daemon = Daemon::start(&[pool("p", json!({}))]);
    daemon.until_chat("p", 200).await;
    let before = daemon.engines_of(&["p"]).await;
    for (bad, why) in [
        (json!({"contxt": 3}), "did you mean `ctx`?"),
        (json!({"ctx": 3}), "pools[0].ctx: must be 16"),
        (json!({"flags": ["--bogus"]}), "pools[0] (p): flags: --bogus"),
    ] {
        daemon.write(&[pool("p", bad), pool("q", json!({}))], &json!({}));
        daemon.signal(Signal::HUP);
        let said = daemon.says(why);
        assert!(said.contains("the one before stays in force"), "{said}");
    }
    assert_eq!((daemon.chat("p").await, daemon.chat("q").await), (200, 404));
    assert_eq!(daemon.engines().await, before);

    let shown = daemon.get("/v2/pools").await["configuration"].clone();
    assert!(shown["file"].as_str().unwrap().ends_with("config.json"), "{shown}");
    assert!(shown["refused"].as_str().unwrap().contains("pools[0] (p): flags: --bogus"), "{shown}");
    daemon.write(&[pool("p", json!({}))], &json!({"limits": {"default": {"concurrent_tasks": 9}}}));
    daemon.signal(Signal::HUP);
    daemon.says("what changed in limits is read when orchestratord starts again");
    let shown = daemon.until_shown(|shown| shown["refused"].is_null()).await;
    assert_eq!(shown["waits"], json!(["limits"]));
}

/// ORCHD-CONFIG-003
#[tokio::test(flavor = "multi_thread")]
async fn the_first_pools_of_a_daemon_that_was_started_without_any_are_followed_like_any_others() {
    let daemon = Daemon::start(&[]);
    let shown = daemon.until_shown(|shown| shown.is_object()).await;
    assert_eq!(daemon.get("/v2/pools").await["pools"], json!([]));
    assert!(shown["refused"].is_null(), "{shown}");

    // Somebody else runs engines for this directory: it is told, and tried again with the next change.
    let runtime = daemon.dir.path().join("runtime");
    let lock = std::fs::File::create(runtime.join("pool-managerd.lock")).unwrap();
    std::io::Write::write_all(&mut &lock, b"4711\n").unwrap();
    lock.lock().unwrap();
    daemon.write(&[pool("p", json!({}))], &json!({}));
    daemon.signal(Signal::HUP);
    let shown = daemon.until_shown(|shown| shown["refused"].is_string()).await;
    assert!(shown["refused"].as_str().unwrap().contains("4711"), "{shown}");
    assert_eq!(daemon.chat("p").await, 404);
    drop(lock);

    daemon.signal(Signal::HUP);
    daemon.says("configuration: p: added");
    daemon.until_chat("p", 200).await;
    daemon.engines_of(&["p"]).await;
    assert!(daemon.get("/v2/operations").await["operations"].is_array());
    let drained = daemon.http.post(format!("{}/v2/pools/p/drain", daemon.base)).send().await.unwrap();
    assert_eq!(drained.status().as_u16(), 202, "orders reach it");

    daemon.write(&[], &json!({}));
    daemon.signal(Signal::HUP);
    daemon.says("configuration: p: removed");
    daemon.until_chat("p", 404).await;
}
