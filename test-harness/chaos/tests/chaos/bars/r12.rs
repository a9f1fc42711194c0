//! R12: clients that go away in the middle of an OpenAI stream.

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

const ROUTES: [(&str, &str); 3] =
    [("chat/completions", "messages"), ("completions", "prompt"), ("messages", "messages")];

pub(super) async fn run(run: Arc<Run>) -> Result<()> {
    let house = House::ready(&run, "ctx: 65536", "STUB_TOKEN_MS: '10'").await?;
    let engine = Engine::of(&house.rig)?;
    let (mut cancelled, mut freed) = (Vec::new(), Vec::new());
    for _ in 0..run.pick(3, 20) {
        for (route, input) in ROUTES {
            for reset in [false, true] {
                let stream = at_token_10(&house, route, input).await?;
                if reset {
                    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).context("asking for a RST")?;
                }
                let left = Instant::now();
                drop(stream);
                let idle = reached("the engine is idle", || engine.is_idle());
                let free =
                    reached("the slot is free", || async { Ok(house.health().await?["slots_free"] == 1) });
                let (idle, free) = tokio::join!(idle, free);
                cancelled.push(idle? - left);
                freed.push(free? - left);
            }
        }
    }
    let (p99, n) = (percentile(&mut cancelled, 99), cancelled.len());
    run.time(
        format!("engine's request cancelled, p99 of {n} (FIN and RST)"),
        p99,
        Duration::from_millis(100),
    );
    run.time("slot free, slowest", percentile(&mut freed, 100), Duration::from_millis(250));
    Ok(())
}

/// A stream that has brought ten tokens.
async fn at_token_10(house: &House, route: &str, input: &str) -> Result<TcpStream> {
    let url = house.api.url("");
    let address = url.trim_start_matches("http://").to_owned();
    let mut body = json!({"model": "p", "stream": true, "max_tokens": 5000});
    body[input] = match input {
        "prompt" => json!("go on"),
        _ => json!([{"role": "user", "content": "go on"}]),
    };
    let body = body.to_string();
    let head = format!(
        "POST /v1/{route} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect(&address).await.context("connecting")?;
    stream.write_all((head + &body).as_bytes()).await.context("asking")?;
    let (mut text, mut bytes) = (String::new(), [0; 4096]);
    while tokens(&text) < 10 {
        let read = stream.read(&mut bytes).await.context("reading")?;
        ensure!(read > 0, "{route} ended early: {text}");
        text.push_str(&String::from_utf8_lossy(&bytes[..read]));
    }
    check_frames(&format!("/v1/{route}"), &text)?;
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
    let has_text = |line: &&str| line.contains("\"content\":\" ") || line.contains("\"text\":\" ");
    text.lines().filter(|line| line.starts_with("data:")).filter(has_text).count()
}
