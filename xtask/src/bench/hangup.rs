//! How long after a client hangs up the engine knows, and whether a request whose client has gone
//! while it waited is ever dispatched. The engine is a stub in this process, so that its clock and
//! its counters are at hand.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::json;
use stub_llama::{RunningStub, Stub, StubConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::stats::{HEAD, Sample};
use super::streams::Orchestratord;

const TIMES: u32 = 48;

pub(super) async fn measure(orchestratord: &Path) -> Result<String> {
    let stub = Stub::start(StubConfig::default()).context("starting a stub")?;
    let daemon = Orchestratord::start(orchestratord, stub.addr())?;
    stub.set_faults(|faults| faults.token = Duration::from_millis(20));
    let mid_stream = hang_up(&stub, daemon.addr(), true).await.context("mid-stream")?;
    stub.set_faults(|faults| faults.prefill = Duration::from_secs(60));
    let before_first = hang_up(&stub, daemon.addr(), false).await.context("before the first token")?;
    let dispatched = queued(&stub, daemon.addr()).await.context("while queued")?;
    Ok(format!(
        "{HEAD}\n{}\n{}\n\nreached the engine: {TIMES} of {TIMES} each; \
         queued requests of clients that had gone and were dispatched all the same: {dispatched} of {TIMES}",
        mid_stream.row("mid-stream"),
        before_first.row("before the first token"),
    ))
}

async fn hang_up(stub: &RunningStub, addr: SocketAddr, mid_stream: bool) -> Result<Sample> {
    let mut times = Vec::new();
    for n in 0..TIMES {
        let ended = stub.stats().cancelled;
        let mut stream = ask(addr).await?;
        if mid_stream {
            let mut seen = [0; 4096];
            // The head, then at least one event with text.
            let mut text = String::new();
            while !text.contains("\"content\":\"") {
                let read = stream.read(&mut seen).await.context("reading")?;
                ensure!(read > 0, "the stream ended: {text}");
                text.push_str(&String::from_utf8_lossy(&seen[..read]));
            }
        } else {
            wait(stub, |stats| stats.busy == 1).await?;
        }
        let began = Instant::now();
        drop(stream);
        wait(stub, |stats| stats.cancelled > ended).await.with_context(|| format!("hang-up {n}"))?;
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    Ok(Sample::new(times))
}

/// Requests that wait behind a running one when their clients go; how many the engine saw.
async fn queued(stub: &RunningStub, addr: SocketAddr) -> Result<usize> {
    let asked =
        |stub: &RunningStub| stub.requests().iter().filter(|r| r.path.ends_with("completions")).count();
    let running = ask(addr).await?;
    wait(stub, |stats| stats.busy == 1).await?;
    let before = asked(stub);
    for _ in 0..TIMES {
        let waiting = ask(addr).await?;
        tokio::time::sleep(Duration::from_millis(5)).await;
        drop(waiting);
    }
    drop(running);
    wait(stub, |stats| stats.busy == 0).await?;
    // Whoever still waits gets the slot now; a request that is served proves that its turn has come.
    stub.set_faults(|faults| (faults.prefill, faults.token) = (Duration::ZERO, Duration::ZERO));
    let mut last = ask(addr).await?;
    let mut head = [0; 16];
    last.read_exact(&mut head).await.context("reading the last answer")?;
    Ok(asked(stub) - before - 1)
}

async fn wait(stub: &RunningStub, holds: impl Fn(&stub_llama::Stats) -> bool) -> Result<()> {
    stub.wait_for(holds).await.map(|_| ()).map_err(|stats| anyhow!("not within 10 s: {stats:?}"))
}

async fn ask(addr: SocketAddr) -> Result<TcpStream> {
    let messages = json!([{"role": "user", "content": "go on"}]);
    let body =
        json!({"model": "default", "stream": true, "max_tokens": 1_000, "messages": messages}).to_string();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect(addr).await.context("connecting")?;
    stream.write_all((head + &body).as_bytes()).await.context("asking")?;
    Ok(stream)
}
