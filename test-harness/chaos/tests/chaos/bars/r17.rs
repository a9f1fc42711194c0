//! R17: clients that are slow, huge, deep or wrong, beside normal ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::house::{House, percentile};
use crate::processes;
use crate::run::Run;

/// Headers must be whole within this time.
const HEADERS: Duration = Duration::from_secs(5);

const GIB: usize = 1 << 30;

pub(super) async fn run(run: Arc<Run>) -> Result<()> {
    let house = House::ready(&run, "", "").await?;
    let address = house.api.url("").trim_start_matches("http://").to_owned();
    let pid = house.orchestratord.pid()?.as_raw();
    // Whatever is made once has been made.
    for _ in 0..50 {
        house.health().await?;
    }
    let attacks = attacks(&run, &address);
    let over = AtomicBool::new(false);
    let before = processes::resident_kib(pid);
    let normal = async {
        let (mut times, mut most) = (Vec::new(), before);
        while !over.load(Ordering::SeqCst) {
            let began = Instant::now();
            house.health().await?;
            times.push(began.elapsed());
            most = most.max(processes::resident_kib(pid));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        anyhow::Ok((times, most))
    };
    let attacks = async {
        let done = attacks.await;
        over.store(true, Ordering::SeqCst);
        done
    };
    let (normal, attacks) = tokio::join!(normal, attacks);
    attacks?;
    let (mut times, most) = normal?;
    run.time(format!("normal p99 of {}", times.len()), percentile(&mut times, 99), Duration::from_millis(50));
    run.amount("memory grew by", most.saturating_sub(before) as f64 / 1024.0, 8.0, "MiB");
    Ok(())
}

async fn attacks(run: &Run, address: &str) -> Result<()> {
    let slow = run.pick(64, 256);
    let mut dribbling = tokio::task::JoinSet::new();
    for _ in 0..slow {
        dribbling.spawn(slowloris(address.to_owned()));
    }
    let post = "POST /v2/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    let announced = format!("{post}Content-Length: {GIB}\r\n\r\n");
    let many: String = (0..101).map(|n| format!("X-Header-{n}: x\r\n")).collect();
    let deep = format!("{{\"model\":\"p\",\"json_schema\":{}1{}}}", "[".repeat(200), "]".repeat(200));
    let wrong = b"{\"model\":\"p\",\"prompt\":\"\xff\xfe\"}";
    let whole = |body: &[u8]| {
        let head = format!("{post}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        [head.as_bytes(), body].concat()
    };
    for round in 0..run.pick(3, 20) {
        for (what, bytes, wanted) in [
            ("1 GiB announced", announced.clone().into_bytes(), 413),
            ("101 headers", format!("GET /health HTTP/1.1\r\nHost: localhost\r\n{many}\r\n").into(), 431),
            ("deep JSON", whole(deep.as_bytes()), 400),
            ("invalid UTF-8", whole(wrong), 400),
        ] {
            let (status, closed) = exchange(address, &bytes).await.with_context(|| what.to_owned())?;
            if round == 0 || status != wanted || !closed {
                run.fact(what, status == wanted && closed, format!("{status}"));
            }
        }
        let (status, sent) = endless_body(address, post).await?;
        if round == 0 || sent > 64 << 20 {
            let seen = format!("{status} after {} MiB", sent >> 20);
            run.fact("1 GiB sent in chunks", status == 413 && sent <= 64 << 20, seen);
        }
    }
    let mut longest = Duration::ZERO;
    while let Some(ended) = dribbling.join_next().await {
        longest = longest.max(ended.context("a slow client")??);
    }
    run.time(format!("{slow} slowloris closed after"), longest, HEADERS + Duration::from_secs(1));
    Ok(())
}

/// Sends bytes, and reads what comes until the connection is closed.
async fn exchange(address: &str, bytes: &[u8]) -> Result<(u16, bool)> {
    let mut stream = TcpStream::connect(address).await.context("connecting")?;
    stream.write_all(bytes).await.context("sending")?;
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    // A reset after the answer is a close, too.
    let closed = tokio::time::timeout(Duration::from_secs(10), read).await.is_ok();
    Ok((status(&answer), closed))
}

/// A body without an announced length, until somebody has had enough.
async fn endless_body(address: &str, post: &str) -> Result<(u16, usize)> {
    let stream = TcpStream::connect(address).await.context("connecting")?;
    let (mut reading, mut writing) = stream.into_split();
    writing
        .write_all(format!("{post}Transfer-Encoding: chunked\r\n\r\n").as_bytes())
        .await
        .context("asking")?;
    let chunk = format!("{:x}\r\n{}\r\n", 1 << 16, " ".repeat(1 << 16));
    let (mut sent, mut answer) = (0, Vec::new());
    let send = async {
        while sent < GIB && writing.write_all(chunk.as_bytes()).await.is_ok() {
            sent += chunk.len();
        }
        // Whoever refuses has said so by now; who does not is waited for.
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    tokio::select! {
        _ = reading.read_to_end(&mut answer) => {}
        () = send => {}
    }
    Ok((status(&answer), sent))
}

/// A header every second, for ever.
async fn slowloris(address: String) -> Result<Duration> {
    let began = Instant::now();
    let mut stream = TcpStream::connect(&address).await.context("connecting")?;
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n").await.context("beginning")?;
    let mut bytes = [0; 1024];
    loop {
        tokio::select! {
            read = stream.read(&mut bytes) => match read {
                Ok(0) | Err(_) => return Ok(began.elapsed()),
                Ok(_) => {}
            },
            () = tokio::time::sleep(Duration::from_secs(1)) => {
                if stream.write_all(b"X-A: b\r\n").await.is_err() {
                    return Ok(began.elapsed());
                }
            }
        }
        anyhow::ensure!(began.elapsed() < Duration::from_secs(30), "a slowloris lives");
    }
}

fn status(answer: &[u8]) -> u16 {
    let text = String::from_utf8_lossy(answer);
    text.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0)
}
