//! How far off the start is that a task is told, under a steady load: every slot is busy, the queue stands,
//! and a client whose task has ended sends the next one. Answers are as unlike as those of the simulation,
//! and how long one will be only the stub's model knows: its client asks it to stop at words that it is
//! going to say then.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use stub_llama::{Continuation, Stub, StubConfig, tokenize};
use tokio::task::JoinSet;

use super::stats::{HEAD, Sample};
use super::streams::Orchestratord;

const SLOTS: u32 = 2;
/// As many as ORCHD-ETA-007 speaks of.
const CLIENTS: usize = 50;
/// One of which has half of the clients.
const CALLERS: usize = 10;
const PER_TOKEN: Duration = Duration::from_millis(4);
/// As in the simulation.
const SPREAD: f64 = 0.7;
const MEDIAN_TOKENS: f64 = 20.0;
/// Until the estimates have something to go by, and then while they are held against what came true. The
/// load goes on until the last of them has.
const WARM_UP: Duration = Duration::from_secs(90);
const WINDOW: Duration = Duration::from_secs(90);
const AFTER: Duration = Duration::from_secs(30);
/// Shorter waits are told in time for nobody to care.
const WORTH_MS: f64 = 1_000.0;

/// What a task was told and what came true, in milliseconds, and when it was told.
struct Told {
    at: Instant,
    start_ms: Option<f64>,
    waited_ms: f64,
}

pub(super) async fn measure(orchestratord: &Path) -> Result<String> {
    let stub = Stub::start(StubConfig { parallel: SLOTS, ctx_size: SLOTS * 4096, ..StubConfig::default() })
        .context("starting a stub")?;
    stub.set_faults(|faults| faults.token = PER_TOKEN);
    let daemon = Orchestratord::start(orchestratord, stub.addr())?;
    let http = reqwest::Client::builder().no_proxy().build().context("building a client")?;
    let from = Instant::now() + WARM_UP;
    let (to, end) = (from + WINDOW, from + WINDOW + AFTER);
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        clients.spawn(run(http.clone(), daemon.addr(), client, end));
    }
    let mut told = Vec::new();
    while let Some(client) = clients.join_next().await {
        told.extend(
            client.context("joining a client")??.into_iter().filter(|told| (from..to).contains(&told.at)),
        );
    }
    let waits: Vec<f64> = told.iter().map(|told| told.waited_ms).collect();
    let worth = told.iter().filter(|told| told.waited_ms >= WORTH_MS);
    let errors: Option<Vec<f64>> =
        worth.map(|told| Some((told.start_ms? - told.waited_ms).abs() / told.waited_ms * 100.0)).collect();
    let errors = errors.context("a task was not told when it starts")?;
    ensure!(errors.len() >= 100, "only {} tasks waited for a second", errors.len());
    let count = errors.len();
    let waits = Sample::new(waits.into_iter().map(|ms| ms / 1e3).collect());
    Ok(format!(
        "{HEAD}\n{}\n{}\n\n{count} tasks that waited for a second or more, of {} in all",
        Sample::new(errors).row("error, % of the wait"),
        waits.row("wait, seconds"),
        told.len()
    ))
}

/// One client: its next task as soon as the one before has ended.
async fn run(http: reqwest::Client, addr: SocketAddr, client: usize, end: Instant) -> Result<Vec<Told>> {
    let caller = if client < CLIENTS / 2 { 0 } else { 1 + client % (CALLERS - 1) };
    let key: Arc<str> = format!("sk-{caller}").into();
    let (mut told, mut random) = (Vec::new(), Random(client as u64));
    while Instant::now() < end {
        // The prompt is what the stub's answer follows from.
        let prompt = format!("of client {client} the task {}", told.len());
        let seed = told.len() as u32;
        let stop = said_after(&prompt, seed, random.length());
        let body = json!({"model": "default", "prompt": prompt, "seed": seed, "stop": [stop]});
        let at = Instant::now();
        let ask = |request: reqwest::RequestBuilder| request.header("x-api-key", &*key).send();
        let answer =
            ask(http.post(format!("http://{addr}/v2/tasks")).json(&body)).await.context("submitting")?;
        let task: Value = answer.json().await.context("reading what was accepted")?;
        let path = task["streams"]["sse"].as_str().with_context(|| format!("not accepted: {task}"))?;
        let events = ask(http.get(format!("http://{addr}{path}"))).await.context("following")?;
        let events = events.text().await.context("reading the events")?;
        ensure!(events.contains("event: end"), "a task did not end well: {events}");
        let started = events.split("event: started\n").nth(1).unwrap_or_default();
        let data = started.lines().find_map(|line| line.strip_prefix("data: ")).context("no start")?;
        let started: Value = serde_json::from_str(data).context("reading the start")?;
        let waited_ms = started["queue_ms"].as_f64().context("no queue_ms")?;
        told.push(Told { at, start_ms: task["predicted_start_ms"].as_f64(), waited_ms });
    }
    Ok(told)
}

/// Three words that the model says behind so many tokens, and hardly ever before.
fn said_after(prompt: &str, seed: u32, tokens: usize) -> String {
    Continuation::new(&tokenize(prompt), seed).skip(tokens).take(3).map(|(_, text)| text).collect()
}

/// SplitMix64.
struct Random(u64);

impl Random {
    /// Above 0, at most 1.
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (((z ^ (z >> 31)) >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }

    /// Tokens of an answer: log-normal.
    fn length(&mut self) -> usize {
        let normal = (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos();
        (MEDIAN_TOKENS * (SPREAD * normal).exp()).ceil() as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_as_unlike_as_is_said() {
        let mut random = Random(1);
        let mut lengths: Vec<_> = (0..2_001).map(|_| random.length() as f64).collect();
        lengths.sort_by(f64::total_cmp);
        let [below, middle, above] = [320, 1_000, 1_680].map(|n| lengths[n]);
        assert!((middle / MEDIAN_TOKENS - 1.0).abs() < 0.1, "{middle}");
        // A standard deviation to each side.
        assert!(((above / below).ln() / 2.0 / SPREAD - 1.0).abs() < 0.1, "{below} to {above}");
    }
}
