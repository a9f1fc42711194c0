//! How many one-token tasks a second go from a submission to their last event.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Binaries;
use super::streams::{Orchestratord, StubProcess};

const TASKS: u32 = 20_000;
pub(super) const CLIENTS: u32 = 64;

pub(super) async fn measure(binaries: &Binaries) -> Result<String> {
    let stub = StubProcess::start(&binaries.stub, CLIENTS, Duration::ZERO)?;
    let daemon = Orchestratord::start(&binaries.orchestratord, stub.addr())?;
    let began = Instant::now();
    let done = load(daemon.addr()).await?;
    let seconds = began.elapsed().as_secs_f64();
    Ok(format!("{done} tasks by {CLIENTS} clients: {:.0} tasks/s", f64::from(done) / seconds))
}

/// Has the clients do all tasks, and says how many they were.
pub(super) async fn load(addr: SocketAddr) -> Result<u32> {
    let left = Arc::new(AtomicU32::new(TASKS));
    let clients: Vec<_> = (0..CLIENTS).map(|_| tokio::spawn(client(addr, Arc::clone(&left)))).collect();
    let mut done = 0;
    for client in clients {
        done += client.await.context("joining a client")??;
    }
    Ok(done)
}

/// Submits a task, reads its events to the end, again and again, over one connection.
async fn client(addr: SocketAddr, left: Arc<AtomicU32>) -> Result<u32> {
    let mut stream = TcpStream::connect(addr).await.context("connecting")?;
    let body = json!({"model": "default", "prompt": "go on", "max_tokens": 1}).to_string();
    let submit =
        format!("POST /v2/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let mut done = 0;
    while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
        let accepted = exchange(&mut stream, &submit, "\"preparation\"").await?;
        let path = accepted.split("\"sse\":\"").nth(1).and_then(|rest| rest.split('"').next());
        let path = path.with_context(|| format!("not accepted: {accepted}"))?;
        let follow = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        exchange(&mut stream, &follow, "\r\n0\r\n\r\n").await?;
        done += 1;
    }
    Ok(done)
}

/// Sends a request and reads until `end` was seen.
async fn exchange(stream: &mut TcpStream, request: &str, end: &str) -> Result<String> {
    stream.write_all(request.as_bytes()).await.context("asking")?;
    let (mut text, mut buffer) = (String::new(), [0; 4096]);
    while !text.contains(end) {
        let read = stream.read(&mut buffer).await.context("reading")?;
        ensure!(read > 0, "the connection closed after: {text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    Ok(text)
}
