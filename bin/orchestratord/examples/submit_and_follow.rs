//! A client of orchestratord: submits a task, follows its stream, and goes on behind the last event that it
//! saw where the connection breaks.
//!
//! `cargo run -p orchestratord --example submit_and_follow -- http://127.0.0.1:8080 haiku "Write a haiku …"`
#![allow(clippy::print_stdout, reason = "it prints the answer")]

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

/// So often a stream is opened again without a word from it in between.
const PATIENCE: u32 = 5;

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut argument = |what: &str| arguments.next().with_context(|| format!("{what} is missing"));
    let (base, model, prompt) = (argument("the URL")?, argument("the model")?, argument("the prompt")?);
    let task = json!({"model": model, "messages": [{"role": "user", "content": prompt}], "max_tokens": 256});
    let end = answer(&base, &task, |text| print!("{text}")).await?;
    println!("\n\n{} tokens: {}", end["tokens_out"], end["finish_reason"]);
    Ok(())
}

/// Says each piece of the answer to `on_text`, and returns what the stream's `end` says.
pub async fn answer(base: &str, task: &Value, mut on_text: impl FnMut(&str)) -> Result<Value> {
    let http = reqwest::Client::builder().no_proxy().build().context("building a client")?;
    let accepted = submit(&http, base, task).await?;
    let path = accepted["streams"]["sse"].as_str().context("the 202 names no stream")?;
    let (mut last, mut silent, mut said) = (None::<String>, 0, 0_u64);
    while silent < PATIENCE {
        silent += 1;
        let mut request = http.get(format!("{base}{path}"));
        if let Some(id) = &last {
            request = request.header("Last-Event-ID", id);
        }
        let Ok(mut answer) = request.send().await else {
            tokio::time::sleep(Duration::from_secs(1)).await;
            continue;
        };
        let mut unread = Vec::new();
        // A connection that breaks is no end: what is missing is asked for again.
        while let Ok(Some(bytes)) = answer.chunk().await {
            unread.extend_from_slice(&bytes);
            while let Some(at) = unread.windows(2).position(|pair| pair == b"\n\n") {
                let frame: Vec<u8> = unread.drain(..at + 2).collect();
                let frame = std::str::from_utf8(&frame).context("a frame is not UTF-8")?;
                let field = |name| frame.lines().find_map(|line| line.strip_prefix(name));
                // A comment only says that the stream is alive.
                let (Some(event), Some(data)) = (field("event: "), field("data: ")) else { continue };
                let data: Value = serde_json::from_str(data).context("an event is not JSON")?;
                match event {
                    "token" => {
                        said += 1;
                        on_text(data["t"].as_str().unwrap_or_default());
                    }
                    // After a power cut: what was lost is said anew, and not as it was.
                    "resumed" if data["from_index"].as_u64().is_some_and(|from| from < said) => {
                        bail!("what was said from token {} on was lost", data["from_index"]);
                    }
                    "end" => return Ok(data),
                    "error" => bail!("{}: {}", data["code"], data["message"]),
                    _ => {}
                }
                last = field("id: ").map(str::to_owned).or(last);
                silent = 0;
            }
        }
    }
    bail!("the stream of {path} does not go on")
}

/// Submits the task; where there is no room it comes back when it was told to.
async fn submit(http: &reqwest::Client, base: &str, task: &Value) -> Result<Value> {
    for _ in 0..PATIENCE {
        let answer = http.post(format!("{base}/v2/tasks")).json(task).send().await.context("submitting")?;
        let status = answer.status().as_u16();
        let wait = answer.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
        let body: Value = answer.json().await.context("the answer is not JSON")?;
        match (status, wait) {
            (202, _) => return Ok(body),
            (429 | 503, Some(seconds)) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            _ => bail!("{status} {}: {}", body["error"]["code"], body["error"]["message"]),
        }
    }
    bail!("there was no room for the task")
}
