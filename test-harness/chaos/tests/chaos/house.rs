//! A machine with an orchestratord on it, and what a user can ask of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use test_harness_bdd::{Process, Rig};
use test_harness_e2e_haiku::{Api, Client, Reader};

use crate::run::{Run, reached};

/// One pool, `p`, with one replica of the fake engine; pool-managerd is inside orchestratord.
pub(crate) struct House {
    pub(crate) rig: Arc<Rig>,
    pub(crate) api: Api,
    pub(crate) orchestratord: Process,
}

/// A pool-managerd of its own process.
pub(crate) struct Manager {
    pub(crate) process: Process,
    base: String,
    token: String,
    http: Client,
}

/// The configuration of one pool with the fake engine: its own keys, and its engine's switches.
pub(crate) fn one_pool(keys: &str, switches: &str) -> String {
    let keys = if keys.is_empty() { String::new() } else { format!("{keys}, ") };
    format!("pools: [{{ id: p, model: '$MODEL', {keys}engine: $STUB_ENGINE, env: {{ {switches} }} }}]\n")
}

impl House {
    /// Starts with one pool and waits until it is ready.
    pub(crate) async fn ready(run: &Run, keys: &str, switches: &str) -> Result<Self> {
        let house = Self::start(run, &one_pool(keys, switches)).await?;
        house.is_ready().await?;
        Ok(house)
    }

    /// Starts with a configuration.
    pub(crate) async fn start(run: &Run, config: &str) -> Result<Self> {
        let rig = run.machine()?;
        rig.configure(config)?;
        Self::start_on(rig).await
    }

    /// Starts on a machine that is there.
    pub(crate) async fn start_on(rig: Arc<Rig>) -> Result<Self> {
        let (orchestratord, api) = rig.start_orchestratord().await?;
        Ok(Self { rig, api, orchestratord })
    }

    /// Waits until the pool takes work, and says when that was.
    pub(crate) async fn is_ready(&self) -> Result<Instant> {
        reached("the pool is ready", || async { Ok(self.health().await?["ready"] == true) }).await
    }

    pub(crate) async fn health(&self) -> Result<Value> {
        self.api.get("/v2/pools/p/health").await
    }

    /// The first replica, as orchestratord shows it.
    pub(crate) async fn replica(&self) -> Result<Value> {
        Ok(self.api.get("/v2/pools/p").await?["replicas"][0].clone())
    }

    /// The engine that is published.
    pub(crate) fn engine(&self) -> Result<i32> {
        published(&self.rig).context("no engine is published")
    }

    /// Submits a task; `more` is added to its body.
    pub(crate) async fn submit(&self, more: Value) -> Result<String> {
        let (status, answer) = self.try_submit(more).await?;
        ensure!(status == 202, "POST /v2/tasks answered {status}: {answer}");
        Ok(answer["task_id"].as_str().context("no task_id")?.to_owned())
    }

    /// The same, whatever is answered.
    pub(crate) async fn try_submit(&self, more: Value) -> Result<(u16, Value)> {
        self.ask(more).await?.checked()
    }

    /// The same, not yet held against the contract, which takes its time.
    pub(crate) async fn ask(&self, more: Value) -> Result<Asked> {
        let mut body = json!({"model": "p", "prompt": "once upon a time", "max_tokens": 8, "temperature": 0});
        if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
            body.extend(more);
        }
        let request = self.api.http().unchecked().post(self.api.url("/v2/tasks")).json(&body);
        let answer = request.send().await.context("POST /v2/tasks")?;
        let status = answer.status().as_u16();
        Ok(Asked { status, text: answer.text().await.context("reading the answer")? })
    }

    /// Reads a task's stream.
    pub(crate) async fn follow(&self, task: &str, after: Option<&str>) -> Result<Reader> {
        Reader::open(&self.api, &format!("/v2/tasks/{task}/events"), after).await
    }

    /// Asks for an operation on the pool and waits for its end.
    pub(crate) async fn operate(&self, what: &str, body: Value) -> Result<Value> {
        let path = format!("/v2/pools/p/{what}");
        let answer = self.api.http().post(self.api.url(&path)).json(&body).send().await.context("asking")?;
        let (status, text) = test_harness_e2e_haiku::checked("POST", &path, answer).await?;
        ensure!(status.as_u16() == 202, "POST {path} answered {status}: {text}");
        let id: Value = serde_json::from_str(&text).context("not JSON")?;
        let path = format!("/v2/operations/{}", id["operation_id"].as_str().context("no operation_id")?);
        reached("the operation ends", || async { Ok(self.api.get(&path).await?["state"] != "running") })
            .await?;
        self.api.get(&path).await
    }
}

/// An answer to a submission.
pub(crate) struct Asked {
    status: u16,
    text: String,
}

impl Asked {
    pub(crate) fn checked(self) -> Result<(u16, Value)> {
        let Self { status, text } = self;
        let contract = test_harness_e2e_haiku::Contract::orchestratord()?;
        contract.check("POST", "/v2/tasks", status, "application/json", &text)?;
        Ok((status, serde_json::from_str(&text).context("the answer is not JSON")?))
    }
}

/// What still runs is not waited for: the second signal, TERM, which `Process` sends, ends it at once. Two
/// of one kind within a moment would be one.
impl Drop for House {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _gone = self.orchestratord.signal(Signal::SIGINT);
    }
}

impl Manager {
    /// Starts it with the machine's configuration and waits until it answers. The configuration must
    /// let it listen on port 0.
    pub(crate) async fn start(rig: &Rig) -> Result<Self> {
        let mut command = rig.program("pool-managerd")?;
        command.args(["--config", "config.yaml"]);
        let process = Process::start(command, rig.path("pool-managerd.log"))?;
        let mut base = None;
        reached("pool-managerd is up", || {
            base = address(&process.said());
            let up = base.is_some();
            async move { Ok(up) }
        })
        .await
        .with_context(|| format!("pool-managerd said:\n{}", process.said()))?;
        let token = std::fs::read_to_string(rig.path("runtime/pool-managerd.token")).context("its token")?;
        Ok(Self {
            process,
            base: base.unwrap_or_default(),
            token: token.trim().to_owned(),
            http: Client::pool_managerd(),
        })
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value> {
        self.ask(reqwest::Method::GET, path).await
    }

    pub(crate) async fn post(&self, path: &str) -> Result<Value> {
        self.ask(reqwest::Method::POST, path).await
    }

    async fn ask(&self, method: reqwest::Method, path: &str) -> Result<Value> {
        let request = self.http.request(method, format!("{}{path}", self.base)).bearer_auth(&self.token);
        let request = request.timeout(Duration::from_secs(30));
        let answer = request.send().await.with_context(|| format!("asking pool-managerd for {path}"))?;
        let status = answer.status();
        let text = answer.text().await.context("reading the answer")?;
        ensure!(status.is_success(), "{path} answered {status}: {text}");
        serde_json::from_str(&text).context("the answer is not JSON")
    }

    /// The first replica of the pool.
    pub(crate) async fn replica(&self) -> Result<Value> {
        Ok(self.get("/v2/pools/p").await?["replicas"][0].clone())
    }
}

fn address(log: &str) -> Option<String> {
    let line = log.lines().find(|line| line.contains("pool-managerd is up"))?;
    let start = line.find("127.0.0.1:")?;
    let end = line[start..].find(|c: char| !(c.is_ascii_digit() || c == '.' || c == ':'));
    Some(format!("http://{}", &line[start..end.map_or(line.len(), |end| start + end)]))
}

/// The process of the published engine of pool `p`.
pub(crate) fn published(rig: &Rig) -> Option<i32> {
    i32::try_from(rig.handoff("p", "r0")?["pid"].as_i64()?).ok()
}

/// Waits until an engine is published, and says which.
pub(crate) async fn until_published(rig: &Rig) -> Result<i32> {
    reached("an engine is published", || async { Ok(published(rig).is_some()) }).await?;
    published(rig).context("it is gone again")
}

/// The process that the identity record names.
pub(crate) fn recorded(rig: &Rig) -> Option<i32> {
    let text = std::fs::read(rig.path("runtime/run/p.r0.pid")).ok()?;
    let record: Value = serde_json::from_slice(&text).ok()?;
    i32::try_from(record["identity"]["pid"].as_i64()?).ok()
}

/// The engine as its own API shows it, with the key from the handoff.
pub(crate) struct Engine {
    url: String,
    key: String,
    http: reqwest::Client,
}

impl Engine {
    /// The one that is published.
    pub(crate) fn of(rig: &Rig) -> Result<Self> {
        let handoff = rig.handoff("p", "r0").context("no handoff")?;
        let text =
            |name: &str| handoff[name].as_str().map(str::to_owned).with_context(|| format!("no {name}"));
        let http = reqwest::Client::builder().no_proxy().build().context("a client")?;
        Ok(Self { url: text("url")?, key: text("api_key")?, http })
    }

    /// Whether no slot is in use.
    pub(crate) async fn is_idle(&self) -> Result<bool> {
        let slots: Value = serde_json::from_str(&self.get("/slots").await?).context("slots")?;
        let slots = slots.as_array().context("no list of slots")?;
        Ok(slots.iter().all(|slot| slot["is_processing"] == false))
    }

    /// Tokens that it has generated, for whomever.
    pub(crate) async fn tokens(&self) -> Result<u64> {
        let text = self.get("/metrics").await?;
        let line = text.lines().find_map(|line| line.strip_prefix("llamacpp:tokens_predicted_total "));
        line.context("no count of tokens")?.parse().context("the count of tokens")
    }

    /// How often it was asked to go on behind each text; for whomever.
    pub(crate) async fn prompts(&self) -> Result<BTreeMap<String, usize>> {
        serde_json::from_str(&self.get("/stub/prompts").await?).context("prompts")
    }

    async fn get(&self, path: &str) -> Result<String> {
        let request = self.http.get(format!("{}{path}", self.url)).bearer_auth(&self.key);
        request.send().await.context("asking the engine")?.text().await.context("reading the engine's answer")
    }
}

/// The `percent`-th of a hundred times, or the last of fewer.
pub(crate) fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort();
    let at = (times.len() * percent).div_ceil(100).max(1) - 1;
    times.get(at).copied().unwrap_or_default()
}

/// Sends a signal.
pub(crate) fn signal(pid: i32, signal: Signal) -> Result<()> {
    kill(Pid::from_raw(pid), signal).with_context(|| format!("sending {signal} to {pid}"))
}
