//! Time to the first token of a streamed chat: through orchestratord, against the same engine
//! process asked directly, one request at a time, the two in turn.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use test_harness_e2e_haiku::Daemon;

use super::stats::{HEAD, Sample};

struct Target {
    url: String,
    key: Option<String>,
}

pub(super) async fn measure(orchestratord: &Path, requests: u32) -> Result<String> {
    let daemon = Daemon::start_binary(orchestratord, &[])?;
    let through = Target { url: daemon.base().to_owned(), key: None };
    let direct = engine(&daemon)?;
    let client = reqwest::Client::builder().no_proxy().build().context("building a client")?;
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for n in 0..requests + 10 {
        let prompt = format!("Write a haiku that includes the word {}", WORDS[n as usize % WORDS.len()]);
        let a = first_token(&client, &through, &prompt).await?;
        let b = first_token(&client, &direct, &prompt).await?;
        if n >= 10 {
            ours.push(a.as_secs_f64() * 1e3);
            bare.push(b.as_secs_f64() * 1e3);
        }
    }
    daemon.stop()?;
    let (ours, bare) = (Sample::new(ours), Sample::new(bare));
    let added = |q| ours.quantile(q) - bare.quantile(q);
    Ok(format!(
        "{HEAD}\n{}\n{}\n\nadded: p50 {:.3} ms, p99 {:.3} ms",
        ours.row("through orchestratord"),
        bare.row("directly to the engine"),
        added(0.5),
        added(0.99)
    ))
}

const WORDS: [&str; 8] = ["rain", "moon", "river", "stone", "winter", "leaf", "bird", "sea"];

fn engine(daemon: &Daemon) -> Result<Target> {
    let path = daemon.runtime().join("engines/haiku.r0.json");
    let text = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    let handoff: wire::Handoff = serde_json::from_slice(&text).context("reading the handoff")?;
    Ok(Target { url: handoff.url, key: handoff.api_key })
}

async fn first_token(client: &reqwest::Client, target: &Target, prompt: &str) -> Result<Duration> {
    // The pool is deterministic, so orchestratord turns the engine's prompt cache off; so do we.
    let body = json!({
        "model": "haiku", "stream": true, "temperature": 0, "max_tokens": 64, "cache_prompt": false,
        "messages": [{"role": "user", "content": prompt}],
    });
    let mut request = client.post(format!("{}/v1/chat/completions", target.url)).json(&body);
    if let Some(key) = &target.key {
        request = request.bearer_auth(key);
    }
    let began = Instant::now();
    let mut answer = request.send().await?.error_for_status()?;
    let (mut seen, mut took) = (String::new(), None);
    while let Some(bytes) = answer.chunk().await? {
        if took.is_none() {
            seen.push_str(&String::from_utf8_lossy(&bytes));
            took = seen.lines().any(has_text).then(|| began.elapsed());
        }
    }
    match took {
        Some(took) => Ok(took),
        None => bail!("{} sent no text: {seen}", target.url),
    }
}

fn has_text(line: &str) -> bool {
    let Some(data) = line.strip_prefix("data: ") else { return false };
    let chunk: Value = serde_json::from_str(data).unwrap_or_default();
    chunk["choices"][0]["delta"]["content"].as_str().is_some_and(|text| !text.is_empty())
}
