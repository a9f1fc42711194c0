//! R12: clients that go away in the middle of an answer, on every `/v1` route that asks an engine.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use socket2::SockRef;
use test_harness_e2e_haiku::Contract;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::house::{Engine, House, percentile};
use crate::run::{Run, reached};

const ROUTES: [(&str, &str); 4] = [
    ("chat/completions", "messages"),
    ("completions", "prompt"),
    ("messages", "messages"),
    ("responses", "input"),
];

pub(super) async fn run(run: Arc<Run>) -> Result<()> {
    streams(&run).await?;
    let documents = json!({"model": "p", "query": "who", "documents": ["nobody", "somebody"]});
    for (kind, route, body) in [
        ("embedding", "embeddings", json!({"model": "p", "input": "who goes there"})),
        ("rerank", "rerank", documents),
    ] {
        at_once(&run, kind, route, &body.to_string()).await?;
    }
    Ok(())
}

/// Answers without tokens: the client leaves while the engine is at work.
async fn at_once(run: &Run, kind: &str, route: &str, body: &str) -> Result<()> {
    let house = House::ready(run, &format!("kind: {kind}"), "STUB_PREFILL_MS: '3000'").await?;
    let engine = Engine::of(&house.rig)?;
    let mut left = Left::default();
    for reset in [false, true].repeat(run.pick(3, 20)) {
        let stream = ask(&house, route, body).await?;
        reached("the engine is at work", || async { Ok(!engine.is_idle().await?) }).await?;
        left.leave(&house, &engine, stream, reset).await?;
    }
    left.tell(run, &format!("/v1/{route}"));
    Ok(())
}

/// How long what a client left behind stayed.
#[derive(Default)]
struct Left {
    cancelled: Vec<Duration>,
    freed: Vec<Duration>,
}

impl Left {
    /// Closes a connection, or breaks it off.
    async fn leave(&mut self, house: &House, engine: &Engine, stream: TcpStream, reset: bool) -> Result<()> {
        if reset {
            SockRef::from(&stream).set_linger(Some(Duration::ZERO)).context("asking for a RST")?;
        }
        let left = Instant::now();
        drop(stream);
        let idle = reached("the engine is idle", || engine.is_idle());
        let free = reached("the slot is free", || async { Ok(house.health().await?["slots_free"] == 1) });
        let (idle, free) = tokio::join!(idle, free);
        self.cancelled.push(idle? - left);
        self.freed.push(free? - left);
        Ok(())
    }

    fn tell(mut self, run: &Run, what: &str) {
        let (p99, n) = (percentile(&mut self.cancelled, 99), self.cancelled.len());
        run.time(
            format!("{what}: engine's request cancelled, p99 of {n} (FIN and RST)"),
            p99,
            Duration::from_millis(100),
        );
        let freed = percentile(&mut self.freed, 100);
        run.time(format!("{what}: slot free, slowest"), freed, Duration::from_millis(250));
    }
}

async fn streams(run: &Run) -> Result<()> {
    let house = House::ready(run, "ctx: 65536", "STUB_TOKEN_MS: '10'").await?;
    let engine = Engine::of(&house.rig)?;
    let mut left = Left::default();
    for _ in 0..run.pick(3, 20) {
        for (route, input) in ROUTES {
            for reset in [false, true] {
                let stream = at_token_10(&house, route, input).await?;
                left.leave(&house, &engine, stream, reset).await?;
            }
        }
    }
    left.tell(run, "streams");
    Ok(())
}

/// A stream that has brought ten tokens.
async fn at_token_10(house: &House, route: &str, input: &str) -> Result<TcpStream> {
    let limit = if route == "responses" { "max_output_tokens" } else { "max_tokens" };
    let mut body = json!({"model": "p", "stream": true, limit: 5000});
    body[input] = match input {
        "messages" => json!([{"role": "user", "content": "go on"}]),
        _ => json!("go on"),
    };
    let mut stream = ask(house, route, &body.to_string()).await?;
    let (mut text, mut bytes) = (String::new(), [0; 4096]);
    while tokens(&text) < 10 {
        let read = stream.read(&mut bytes).await.context("reading")?;
        ensure!(read > 0, "{route} ended early: {text}");
        text.push_str(&String::from_utf8_lossy(&bytes[..read]));
    }
    check_frames(&format!("/v1/{route}"), &text)?;
    Ok(stream)
}

/// Sends a request on a connection of its own.
async fn ask(house: &House, route: &str, body: &str) -> Result<TcpStream> {
    let url = house.api.url("");
    let address = url.trim_start_matches("http://").to_owned();
    let head = format!(
        "POST /v1/{route} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect(&address).await.context("connecting")?;
    stream.write_all((head + body).as_bytes()).await.context("asking")?;
    Ok(stream)
}

/// Holds what came whole against the contract; the sizes of chunks stand between its lines.
fn check_frames(path: &str, text: &str) -> Result<()> {
    let mut event = "";
    for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
        if line.starts_with("event: ") {
            event = line;
        } else if line.starts_with("data: ") {
            let frame = format!("{event}{line}\n");
            Contract::orchestratord()?.check("POST", path, 200, "text/event-stream", &frame)?;
            event = "";
        }
    }
    Ok(())
}

/// Frames with text, in any of the dialects.
fn tokens(text: &str) -> usize {
    let texts = ["\"content\":\" ", "\"text\":\" ", "\"delta\":\" "];
    let has_text = |line: &&str| texts.iter().any(|text| line.contains(text));
    text.lines().filter(|line| line.starts_with("data:")).filter(has_text).count()
}
