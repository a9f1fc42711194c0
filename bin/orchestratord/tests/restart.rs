//! The built binary killed and started again: what was accepted is there, once, as it was.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test helper fails by panicking")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use handoff::HandoffDir;
use serde_json::{Value, json};
use stub_llama::{RunningStub, Stub, StubConfig};

/// A runtime directory with one pool, `p`, whose engine outlives every orchestratord.
struct House {
    dir: tempfile::TempDir,
    stub: RunningStub,
    http: reqwest::Client,
}

/// One process.
struct Daemon {
    child: Child,
    base: String,
}

/// An event as it was read: its id, its name, its data.
type Seen = (String, String, Value);

impl House {
    fn new(slots: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let stub = Stub::start(StubConfig { parallel: slots, ..StubConfig::default() }).unwrap();
        std::fs::write(dir.path().join("token"), "unused").unwrap();
        let config = json!({
            "log": {"format": "json"},
            "paths": {"runtime": dir.path().join("runtime"), "cache": dir.path().join("cache")},
            // A pool-managerd that is down: its engine stays in use.
            "pool_managerd": {"url": "http://127.0.0.1:1", "token_file": dir.path().join("token")},
            "pools": [{"id": "p", "model": "builtin:haiku", "queue": {"capacity": 600}}],
        });
        std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
        let handoffs = HandoffDir::open(dir.path().join("runtime/engines")).unwrap();
        let handoff = json!({"url": stub.url(), "pool_id": "p", "generation": 1, "slots_total": slots});
        handoffs.publish(&serde_json::from_value(handoff).unwrap()).unwrap();
        Self { dir, stub, http: reqwest::Client::builder().no_proxy().build().unwrap() }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_orchestratord"));
        command.arg("--config").arg(self.dir.path().join("config.json")).args(arguments);
        command.env_remove("RUST_LOG").env_remove("LLAMA_ORCH_TOKEN").env("ORCHD_ADDR", "127.0.0.1:0");
        command.stdin(Stdio::null());
        command
    }

    fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn start(&self) -> Daemon {
        let mut child = self.command(&[]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let (say, said) = mpsc::channel();
        let stderr = child.stderr.take().unwrap();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                // Nobody listens after the first; the pipe is emptied all the same.
                let _ = say.send(line);
            }
        });
        let addr = loop {
            let line = said.recv_timeout(Duration::from_secs(30)).unwrap();
            let line: Value = serde_json::from_str(&line).unwrap_or_default();
            if let Some(addr) = line["fields"]["addr"].as_str() {
                break addr.to_owned();
            }
        };
        Daemon { child, base: format!("http://{addr}") }
    }

    fn journal(&self) -> PathBuf {
        self.dir.path().join("runtime/journal")
    }

    /// How often each prompt was generated from; a list is a prompt with an answer to go on behind.
    fn generations(&self) -> BTreeMap<String, usize> {
        let mut seen = BTreeMap::new();
        for request in self.stub.requests().iter().filter(|request| request.path == "/completion") {
            if let Some(prompt) = request.body["prompt"].as_str() {
                *seen.entry(prompt.to_owned()).or_default() += 1;
            }
        }
        seen
    }

    async fn get(&self, daemon: &Daemon, path: &str) -> Value {
        self.http.get(format!("{}{path}", daemon.base)).send().await.unwrap().json().await.unwrap()
    }

    async fn post(&self, daemon: &Daemon, body: &Value) -> (u16, Value) {
        let answer = self.http.post(format!("{}/v2/tasks", daemon.base)).json(body).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    async fn submit(&self, daemon: &Daemon, id: &str, max_tokens: u32) {
        let (status, answer) = self.post(daemon, &body(id, max_tokens)).await;
        assert_eq!(status, 202, "{answer}");
    }

    async fn events(&self, daemon: &Daemon, id: &str, after: Option<&str>) -> Vec<Seen> {
        let mut request = self.http.get(format!("{}/v2/tasks/{id}/events", daemon.base));
        if let Some(after) = after {
            request = request.header("Last-Event-ID", after);
        }
        frames(&request.send().await.unwrap().error_for_status().unwrap().text().await.unwrap())
    }
}

fn body(id: &str, max_tokens: u32) -> Value {
    json!({"model": "p", "task_id": id, "prompt": format!("PROMPT of {id}"), "max_tokens": max_tokens})
}

/// The whole frames of a stream that may break off.
fn frames(text: &str) -> Vec<Seen> {
    let whole = text.rfind("\n\n").map_or("", |end| &text[..end]);
    let field = |frame: &str, name: &str| {
        frame.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(": ")?.to_owned()))
    };
    let frame = |frame: &str| {
        let data = serde_json::from_str(&field(frame, "data")?).unwrap();
        Some((field(frame, "id")?, field(frame, "event")?, data))
    };
    whole.split("\n\n").filter_map(frame).collect()
}

impl Daemon {
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn terminate(mut self) {
        Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None => assert!(Instant::now() < deadline, "it does not stop"),
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        assert!(status.success(), "{status}");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn holds_text(dir: &Path, text: &str) -> bool {
    std::fs::read_dir(dir).unwrap().map(Result::unwrap).any(|entry| {
        match entry.file_type().unwrap().is_dir() {
            true => holds_text(&entry.path(), text),
            false => std::fs::read(entry.path()).unwrap().windows(text.len()).any(|at| at == text.as_bytes()),
        }
    })
}

async fn until(mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds().await {
        assert!(Instant::now() < deadline, "not within 60 s");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// R15 with fewer tasks; ORCHD-JOURNAL-001, ORCHD-JOURNAL-002, ORCHD-JOURNAL-003, STREAM-002
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_loses_no_task_and_doubles_none() {
    const STREAMS: usize = 4;
    let waiting: usize = std::env::var("RESTART_WAITING").map_or(60, |count| count.parse().unwrap());
    let house = House::new(STREAMS as u32);
    house.stub.set_faults(|faults| faults.token = Duration::from_millis(10));
    let daemon = house.start();
    let mut readers = Vec::new();
    for n in 0..STREAMS {
        let id = format!("stream-{n}");
        house.submit(&daemon, &id, 1_000_000).await;
        let url = format!("{}/v2/tasks/{id}/events", daemon.base);
        let mut answer = house.http.get(url).send().await.unwrap();
        let mut text = String::new();
        while frames(&text).len() < 10 {
            text.push_str(std::str::from_utf8(&answer.chunk().await.unwrap().unwrap()).unwrap());
        }
        readers.push(tokio::spawn(async move {
            // Until the kill breaks it off.
            while let Ok(Some(bytes)) = answer.chunk().await {
                text.push_str(std::str::from_utf8(&bytes).unwrap());
            }
            (id, frames(&text))
        }));
    }
    for n in 0..waiting {
        house.submit(&daemon, &format!("waits-{n}"), 3).await;
    }
    daemon.kill();
    house.stub.set_faults(|faults| faults.token = Duration::ZERO);

    let began = Instant::now();
    let daemon = house.start();
    until(async || house.get(&daemon, "/readyz").await["ready"] == true).await;
    println!("{waiting} waiting and {STREAMS} streaming: ready {:?} after the start", began.elapsed());
    let (status, conflict) = house.post(&daemon, &body("waits-0", 4)).await;
    assert_eq!((status, &conflict["error"]["code"]), (409, &json!("CONFLICT")), "{conflict}");
    for n in 0..waiting {
        let id = format!("waits-{n}");
        let events = house.events(&daemon, &id, None).await;
        assert_eq!(events.last().unwrap().1, "end", "{id}: {events:?}");
        assert_eq!(house.get(&daemon, &format!("/v2/tasks/{id}")).await["state"], "done");
    }
    for reader in readers {
        let (id, before) = reader.await.unwrap();
        let (last, ..) = before.last().unwrap();
        let after = house.events(&daemon, &id, Some(last)).await;
        let all = house.events(&daemon, &id, None).await;
        assert!(all.len() >= before.len() + after.len());
        assert_eq!(all[..before.len()], before, "what was seen is what is kept");
        assert_eq!(all[before.len()..], after, "and a reader goes on right behind it");
        let tokens: Vec<_> =
            all.iter().filter(|event| event.1 == "token").map(|event| &event.2["i"]).collect();
        assert!(tokens.iter().enumerate().all(|(n, i)| **i == n), "{id}: {tokens:?}");
        assert_eq!(all.iter().filter(|event| event.1 == "end" || event.1 == "error").count(), 1);
    }
    let generations = house.generations();
    assert_eq!(generations.len(), waiting + STREAMS);
    for (prompt, times) in generations.iter().filter(|(prompt, _)| prompt.contains("waits-")) {
        assert_eq!(*times, 1, "{prompt}");
    }
    until(async || !holds_text(&house.journal(), "PROMPT of")).await;
    daemon.terminate();
    let daemon = house.start();
    let list = house.get(&daemon, "/v2/tasks?limit=1000").await;
    assert_eq!(list["tasks"].as_array().unwrap().len(), waiting + STREAMS);
}

/// ORCHD-STOP-003
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_at_a_stop_runs_after_the_next_start() {
    let house = House::new(1);
    house.stub.set_faults(|faults| faults.mute = true);
    let daemon = house.start();
    house.submit(&daemon, "runs", 3).await;
    until(async || house.get(&daemon, "/v2/tasks/runs").await["state"] == "running").await;
    house.submit(&daemon, "waits", 3).await;
    daemon.terminate();
    house.stub.set_faults(|faults| faults.mute = false);
    let daemon = house.start();
    let events = house.events(&daemon, "waits", None).await;
    assert_eq!(events.last().unwrap().1, "end", "{events:?}");
    let events = house.events(&daemon, "runs", None).await;
    assert_eq!(events.last().unwrap().2["code"], "INTERRUPTED", "{events:?}");
}

/// ORCHD-JOURNAL-007
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_journal_stops_the_start_with_what_to_do_and_repair_does_it() {
    let house = House::new(1);
    let daemon = house.start();
    house.submit(&daemon, "whole", 5).await;
    house.events(&daemon, "whole", None).await;
    let held = house.output(&["journal", "check"]);
    assert_eq!(held.status.code(), Some(100), "{held:?}");
    daemon.terminate();
    let sound = house.output(&["journal", "check"]);
    assert!(sound.status.success(), "{sound:?}");
    assert!(String::from_utf8_lossy(&sound.stdout).contains("1 have ended"), "{sound:?}");

    let file = house.journal().join("events/00000001.events");
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x20;
    std::fs::write(&file, bytes).unwrap();
    let stopped = house.output(&[]);
    assert_eq!(stopped.status.code(), Some(2), "{stopped:?}");
    let said = String::from_utf8_lossy(&stopped.stderr);
    assert!(said.contains(file.to_str().unwrap()) && said.contains("damaged at byte "), "{said}");
    assert!(said.contains("journal repair") && said.contains("set the journal aside"), "{said}");
    let damaged = house.output(&["journal", "check"]);
    assert_eq!(damaged.status.code(), Some(1), "{damaged:?}");
    let repaired = house.output(&["journal", "repair"]);
    assert!(repaired.status.success(), "{repaired:?}");
    assert!(String::from_utf8_lossy(&repaired.stdout).contains("task number 1 keeps "), "{repaired:?}");
    assert!(house.output(&["journal", "check"]).status.success());
    let daemon = house.start();
    let events = house.events(&daemon, "whole", None).await;
    assert_eq!(events.last().unwrap().2["code"], "INTERRUPTED", "{events:?}");
    assert_eq!(house.get(&daemon, "/v2/tasks/whole").await["state"], "interrupted");
}
