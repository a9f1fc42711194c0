//! The whole of orchestratord in this process, with engines that are stubs and pool-managerd absent:
//! what it does with handoffs, clients and time.

mod artifacts;
mod autobind;
mod catalog;
mod dashboard;
mod doors;
mod draining;
mod edge;
mod limits;
mod load;
mod logs;
mod measured;
mod observability;
mod openai;
mod otlp;
mod resume;
mod retries;
mod slow_readers;
mod stops;
mod streams;
mod turns;
mod usage;
mod workers;

use std::path::Path;
use std::time::{Duration, Instant};

use config_loader::Env;
use handoff::HandoffDir;
use serde_json::{Value, json};
use stub_llama::{Faults, RunningStub, Stub, StubConfig};
use test_harness_e2e_haiku::Client;
use wire::config::{Config, PoolConfig};
use wire::{Handoff, PoolId};

use crate::app::{self, Running};
use crate::settings::Settings;

/// One orchestratord with one pool, `p`, that waits for handoffs.
struct Orchestrator {
    running: Running,
    handoffs: HandoffDir,
    http: Client,
    _dir: tempfile::TempDir,
}

fn settings(dir: &Path, change: impl FnOnce(&mut Config)) -> Settings {
    let token = dir.join("pool-managerd.token");
    std::fs::write(&token, "unused").unwrap();
    let mut config = Config {
        pools: vec![PoolConfig::new(PoolId::try_new("p").unwrap(), "builtin:haiku")],
        ..Config::default()
    };
    config.api.listen = ([127, 0, 0, 1], 0).into();
    config.paths.runtime = dir.to_owned();
    config.paths.cache = dir.join("cache");
    // A pool-managerd that is down: what is ready stays in use, what is not stays away.
    config.pool_managerd.url = Some("http://127.0.0.1:1".to_owned());
    config.pool_managerd.token_file = Some(token);
    change(&mut config);
    Settings {
        config,
        env: Env::new(dir, Vec::<(String, String)>::new()),
        shim: None,
        file: None,
        command: "orchestratord",
        limits: crate::http::ServerLimits::default(),
    }
}

impl Orchestrator {
    async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        Self::start_limited(change, |_| {}).await
    }

    async fn start_limited(
        change: impl FnOnce(&mut Config),
        limit: impl FnOnce(&mut crate::http::ServerLimits),
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = settings(dir.path(), change);
        limit(&mut settings.limits);
        let running = app::start(&settings, settings.config.api.listen).await.unwrap();
        let handoffs = HandoffDir::open(dir.path().join("engines")).unwrap();
        let http = Client::orchestratord();
        Self { running, handoffs, http, _dir: dir }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.running.addr())
    }

    async fn get(&self, path: &str) -> Value {
        self.http.get(self.url(path)).send().await.unwrap().json().await.unwrap()
    }

    async fn get_raw(&self, path: &str) -> (u16, Value) {
        let answer = self.http.get(self.url(path)).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        let answer = self.http.post(self.url(path)).json(&body).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// Submits a completion and says its id.
    async fn submit(&self, more: Value) -> String {
        let mut body = json!({"model": "p", "prompt": "once upon a time", "max_tokens": 8});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let (status, answer) = self.post("/v2/tasks", body).await;
        assert_eq!(status, 202, "{answer}");
        answer["task_id"].as_str().unwrap().to_owned()
    }

    /// All frames of a finished stream: (id, event, data).
    async fn events(&self, task: &str, after: Option<&str>) -> Vec<(String, String, Value)> {
        let mut request = self.http.get(self.url(&format!("/v2/tasks/{task}/events")));
        if let Some(id) = after {
            request = request.header("Last-Event-ID", id);
        }
        frames(&request.send().await.unwrap().error_for_status().unwrap().text().await.unwrap())
    }

    fn publish(&self, stub: &RunningStub, pool: &str, generation: u64) {
        self.publish_as(stub, pool, generation, "ready");
    }

    fn publish_as(&self, stub: &RunningStub, pool: &str, generation: u64, state: &str) {
        let handoff = json!({
            "url": stub.url(), "pool_id": pool, "generation": generation, "engine_version": "stub-1", "state": state,
            "slots_total": 1, "model": {"id": "stub-model", "path": "", "digest": "abc"},
        });
        let handoff: Handoff = serde_json::from_value(handoff).unwrap();
        self.handoffs.publish(&handoff).unwrap();
    }

    async fn until_ready(&self, pool: &str, ready: bool) {
        let path = format!("/v2/pools/{pool}/health");
        until(async || self.get(&path).await["ready"] == ready).await;
    }

    async fn stop(self) -> Duration {
        let began = Instant::now();
        self.running.shutdown(std::future::pending()).await;
        began.elapsed()
    }
}

/// (id, event, data), where there is an event.
fn frames(text: &str) -> Vec<(String, String, Value)> {
    let field = |frame: &str, name: &str| {
        frame.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(": ")?.to_owned()))
    };
    text.split_terminator("\n\n")
        .filter_map(|frame| {
            let data = serde_json::from_str(&field(frame, "data")?).unwrap();
            Some((field(frame, "id").unwrap_or_default(), field(frame, "event")?, data))
        })
        .collect()
}

fn stub() -> RunningStub {
    stub_with(|_| {})
}

fn stub_with(change: impl FnOnce(&mut Faults)) -> RunningStub {
    let mut config = StubConfig::default();
    change(&mut config.faults);
    Stub::start(config).unwrap()
}

/// Waits for a condition; the deadline only bounds a failing test.
async fn until(mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds().await {
        assert!(Instant::now() < deadline, "not within 20 s");
        tokio::task::yield_now().await;
    }
}
