//! A runtime directory, an engine that outlives every orchestratord, and the built binary on it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use handoff::HandoffDir;
use serde_json::{Value, json};
use stub_llama::{RunningStub, Stub, StubConfig};
use test_harness_e2e_haiku::Client;

/// A runtime directory with one pool, `p`, whose engine outlives every orchestratord.
pub(crate) struct House {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) stub: RunningStub,
    pub(crate) http: Client,
}

/// One process.
pub(crate) struct Daemon {
    child: Child,
    pub(crate) base: String,
}

/// An event as it was read: its id, its name, its data.
pub(crate) type Seen = (String, String, Value);

impl House {
    pub(crate) fn new(slots: u32) -> Self {
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
        publish(dir.path(), &stub.url(), 1, slots);
        Self { dir, stub, http: Client::orchestratord() }
    }

    /// Changes the configuration of the processes that start from now on.
    pub(crate) fn configure(&self, change: impl FnOnce(&mut Value)) {
        let file = self.dir.path().join("config.json");
        let mut config = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        change(&mut config);
        std::fs::write(file, config.to_string()).unwrap();
    }

    /// Another engine in the place of the one before.
    pub(crate) fn publish(&self, url: &str, generation: u64) {
        publish(self.dir.path(), url, generation, 1);
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_orchestratord"));
        command.arg("--config").arg(self.dir.path().join("config.json")).args(arguments);
        command.env_remove("RUST_LOG").env_remove("LLAMA_ORCH_TOKEN").env("ORCHD_ADDR", "127.0.0.1:0");
        command.stdin(Stdio::null());
        command
    }

    pub(crate) fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    pub(crate) fn start(&self) -> Daemon {
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

    pub(crate) fn journal(&self) -> PathBuf {
        self.dir.path().join("runtime/journal")
    }

    /// How often each prompt was generated from; a list is a prompt with an answer to go on behind.
    pub(crate) fn generations(&self) -> BTreeMap<String, usize> {
        let mut seen = BTreeMap::new();
        for request in self.stub.requests().iter().filter(|request| request.path == "/completion") {
            if let Some(prompt) = request.body["prompt"].as_str() {
                *seen.entry(prompt.to_owned()).or_default() += 1;
            }
        }
        seen
    }

    pub(crate) async fn get(&self, daemon: &Daemon, path: &str) -> Value {
        self.http.get(format!("{}{path}", daemon.base)).send().await.unwrap().json().await.unwrap()
    }

    pub(crate) async fn get_bytes(&self, daemon: &Daemon, path: &str) -> Vec<u8> {
        let answer = self.http.get(format!("{}{path}", daemon.base)).send().await.unwrap();
        answer.error_for_status().unwrap().bytes().await.unwrap().into()
    }

    pub(crate) async fn post(&self, daemon: &Daemon, body: &Value) -> (u16, Value) {
        let answer = self.http.post(format!("{}/v2/tasks", daemon.base)).json(body).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    pub(crate) async fn submit(&self, daemon: &Daemon, id: &str, max_tokens: u32) {
        let (status, answer) = self.post(daemon, &body(id, max_tokens)).await;
        assert_eq!(status, 202, "{answer}");
    }

    pub(crate) async fn events(&self, daemon: &Daemon, id: &str, after: Option<&str>) -> Vec<Seen> {
        let mut request = self.http.get(format!("{}/v2/tasks/{id}/events", daemon.base));
        if let Some(after) = after {
            request = request.header("Last-Event-ID", after);
        }
        frames(&request.send().await.unwrap().error_for_status().unwrap().text().await.unwrap())
    }
}

fn publish(dir: &Path, url: &str, generation: u64, slots: u32) {
    let handoffs = HandoffDir::open(dir.join("runtime/engines")).unwrap();
    let handoff = json!({"url": url, "pool_id": "p", "generation": generation, "slots_total": slots});
    handoffs.publish(&serde_json::from_value(handoff).unwrap()).unwrap();
}

pub(crate) fn body(id: &str, max_tokens: u32) -> Value {
    json!({"model": "p", "task_id": id, "prompt": format!("PROMPT of {id}"), "max_tokens": max_tokens})
}

/// The whole frames of a stream that may break off.
pub(crate) fn frames(text: &str) -> Vec<Seen> {
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
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn terminate(mut self) {
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

pub(crate) fn holds_text(dir: &Path, text: &str) -> bool {
    std::fs::read_dir(dir).unwrap().map(Result::unwrap).any(|entry| {
        match entry.file_type().unwrap().is_dir() {
            true => holds_text(&entry.path(), text),
            false => std::fs::read(entry.path()).unwrap().windows(text.len()).any(|at| at == text.as_bytes()),
        }
    })
}

pub(crate) async fn until(mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds().await {
        assert!(Instant::now() < deadline, "not within 60 s");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
