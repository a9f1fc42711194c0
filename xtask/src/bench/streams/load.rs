//! The client: many raw connections that read a stream each and note how old every token is when it
//! arrives. It does as little as it can, because it shares the machine with what it measures.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::process;
use crate::bench::stats::Sample;

/// Streams that begin together where tokens come in bursts.
const BURST: u32 = 64;
/// Between the beginnings of two streams, at least: opening must not be what is measured.
const APART: Duration = Duration::from_millis(2);
/// Until every stream has begun, besides the time over which they begin.
const PATIENCE: Duration = Duration::from_secs(60);

/// Which of the APIs is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Api {
    /// `POST /v1/chat/completions`.
    Chat,
    /// `POST /v2/tasks`, then its events.
    Tasks,
}

/// One measurement.
pub(super) struct Load {
    pub(super) streams: u32,
    pub(super) pace: Duration,
    pub(super) window: Duration,
    /// Whether the tokens of many streams come at once, as those of an engine's batch do, or evenly spread.
    pub(super) bursts: bool,
}

/// What came of it.
#[derive(Clone, Default)]
pub(super) struct Measured {
    /// Age of each token at its arrival, in microseconds.
    pub(super) latencies: Sample,
    pub(super) tokens_per_s: f64,
    pub(super) rss_per_stream_kib: f64,
    /// There is a process in between whose cost was measured.
    pub(super) has_process: bool,
    cpu_us: f64,
    tokens: usize,
}

impl Measured {
    /// CPU time per token.
    pub(super) fn cpu_us(&self) -> f64 {
        self.cpu_us / self.tokens.max(1) as f64
    }
}

struct Shared {
    addr: SocketAddr,
    api: Api,
    max_tokens: u64,
    begun: AtomicU32,
    recording: AtomicBool,
    over: AtomicBool,
}

impl Load {
    /// When the `nth` stream begins, and its tokens come a pace apart from then on. Evenly spread, the
    /// streams begin some whole number of `pace / streams` after one another that has no divisor in common
    /// with how many they are, so that no two have the same phase.
    fn begins(&self, nth: u32) -> Duration {
        if self.bursts {
            return self.pace * (nth / BURST);
        }
        let step = self.pace / self.streams.max(1);
        let fewest = APART.as_nanos().div_ceil(step.as_nanos().max(1)) as u32;
        let apart = (fewest..).find(|apart| coprime(*apart, self.streams)).unwrap_or(fewest);
        step * apart * nth
    }

    /// Opens all streams at `addr`, then measures for the window, and hangs up.
    pub(super) async fn run(&self, addr: SocketAddr, api: Api, pids: &[u32]) -> Result<Measured> {
        let patience = PATIENCE + self.begins(self.streams);
        let enough = (self.window + patience + Duration::from_secs(30)).as_millis() / self.pace.as_millis();
        let shared = Arc::new(Shared {
            addr,
            api,
            max_tokens: u64::try_from(enough).context("counting tokens")?,
            begun: AtomicU32::new(0),
            recording: AtomicBool::new(false),
            over: AtomicBool::new(false),
        });
        let idle_kib = process::rss_kib(pids)?;
        let opened = Instant::now();
        let begins = |nth| tokio::time::Instant::from_std(opened + self.begins(nth));
        let readers: Vec<_> = (0..self.streams)
            .map(|nth| tokio::spawn(read_stream(Arc::clone(&shared), begins(nth))))
            .collect();
        while shared.begun.load(Ordering::Relaxed) < self.streams {
            if opened.elapsed() > patience || readers.iter().any(tokio::task::JoinHandle::is_finished) {
                shared.over.store(true, Ordering::Relaxed);
                for reader in readers {
                    if reader.is_finished() {
                        reader.await.context("joining a reader")??;
                    }
                }
                bail!("only {} of {} streams began", shared.begun.load(Ordering::Relaxed), self.streams);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // What the beginning left behind is not measured.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let (began, cpu) = (Instant::now(), process::cpu_us(pids)?);
        shared.recording.store(true, Ordering::Relaxed);
        tokio::time::sleep(self.window).await;
        let cpu_us = process::cpu_us(pids)? - cpu;
        shared.recording.store(false, Ordering::Relaxed);
        let (seconds, busy_kib) = (began.elapsed().as_secs_f64(), process::rss_kib(pids)?);
        shared.over.store(true, Ordering::Relaxed);
        let mut latencies = Vec::new();
        for reader in readers {
            latencies.extend(reader.await.context("joining a reader")??);
        }
        ensure!(!latencies.is_empty(), "no token arrived in the window");
        Ok(Measured {
            tokens: latencies.len(),
            tokens_per_s: latencies.len() as f64 / seconds,
            rss_per_stream_kib: (busy_kib - idle_kib) / f64::from(self.streams),
            has_process: !pids.is_empty(),
            cpu_us,
            latencies: Sample::new(latencies),
        })
    }
}

/// Reads one stream until the measurement is over; the ages of the tokens in the window.
async fn read_stream(shared: Arc<Shared>, begins: tokio::time::Instant) -> Result<Vec<f64>> {
    tokio::time::sleep_until(begins).await;
    let mut stream = open(&shared).await?;
    let (mut begun, mut ages, mut buffer, mut held) = (false, Vec::new(), vec![0; 16 * 1024], 0);
    while !shared.over.load(Ordering::Relaxed) {
        let read = tokio::time::timeout(Duration::from_secs(30), stream.read(&mut buffer[held..])).await;
        let read = read.context("a stream fell silent")?.context("reading a stream")?;
        ensure!(read > 0, "a stream ended early: {}", String::from_utf8_lossy(&buffer[..held]));
        let now = micros();
        let recording = shared.recording.load(Ordering::Relaxed);
        let (stamps, rest) = stamps(&buffer[..held + read]);
        for sent in stamps {
            if !std::mem::replace(&mut begun, true) {
                shared.begun.fetch_add(1, Ordering::Relaxed);
            }
            if recording {
                ages.push(now.saturating_sub(sent) as f64);
            }
        }
        buffer.copy_within(rest..held + read, 0);
        held = held + read - rest;
    }
    Ok(ages)
}

/// The send times in `bytes`, and where what may be the beginning of one starts.
fn stamps(bytes: &[u8]) -> (Vec<u64>, usize) {
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some(start) = bytes[at..].iter().position(|b| *b == b'@').map(|start| at + start) {
        let digits = bytes[start + 1..].iter().take_while(|b| b.is_ascii_digit()).count();
        let end = start + 1 + digits;
        if end == bytes.len() {
            return (found, start);
        }
        let number: Option<u64> =
            std::str::from_utf8(&bytes[start + 1..end]).ok().and_then(|text| text.parse().ok());
        found.extend(number);
        at = end;
    }
    (found, bytes.len())
}

fn coprime(mut a: u32, mut b: u32) -> bool {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a == 1
}

async fn open(shared: &Shared) -> Result<TcpStream> {
    let path = match shared.api {
        Api::Chat => "/v1/chat/completions".to_owned(),
        Api::Tasks => format!("/v2/tasks/{}/events", submit(shared).await?),
    };
    let mut stream = connect(shared.addr).await?;
    let request = match shared.api {
        Api::Chat => {
            let messages = json!([{"role": "user", "content": "go on"}]);
            let body = json!({"model": "default", "stream": true, "max_tokens": shared.max_tokens, "messages": messages});
            post(&path, &body)
        }
        Api::Tasks => format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    };
    stream.write_all(request.as_bytes()).await.context("asking")?;
    Ok(stream)
}

async fn submit(shared: &Shared) -> Result<String> {
    let mut stream = connect(shared.addr).await?;
    let body = json!({"model": "default", "prompt": "go on", "max_tokens": shared.max_tokens});
    let request = post("/v2/tasks", &body).replacen("\r\n", "\r\nConnection: close\r\n", 1);
    stream.write_all(request.as_bytes()).await.context("submitting")?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.context("reading the answer to a submission")?;
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let answer: Value = serde_json::from_str(body).with_context(|| format!("not accepted: {text}"))?;
    answer["task_id"].as_str().map(str::to_owned).with_context(|| format!("not accepted: {text}"))
}

async fn connect(addr: SocketAddr) -> Result<TcpStream> {
    TcpStream::connect(addr).await.with_context(|| format!("connecting to {addr}"))
}

fn post(path: &str, body: &Value) -> String {
    let body = body.to_string();
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn micros() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_micros() as u64)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{APART, Load, stamps};

    #[test]
    fn spread_streams_begin_one_by_one_and_no_two_have_the_same_phase() {
        for streams in [1, 16, 48, 64, 4096] {
            let pace = Duration::from_millis(u64::from((streams * 1_000 / 3_200).max(1)));
            let load = Load { streams, pace, window: Duration::ZERO, bursts: false };
            let step = (pace / streams).as_nanos();
            let phase = |nth| load.begins(nth).as_nanos() / step % u128::from(streams);
            let mut phases: Vec<u128> = (0..streams).map(phase).collect();
            phases.sort_unstable();
            assert!(phases.iter().copied().eq(0..u128::from(streams)), "{streams}: {phases:?}");
            assert!(load.begins(1) >= APART && load.begins(1) < APART + pace, "{streams}");
        }
    }

    #[test]
    fn a_stamp_that_is_cut_is_read_when_the_rest_is_there() {
        assert_eq!(stamps(b"{\"t\":\"@12 \"} {\"t\":\"@34"), (vec![12], 19));
        assert_eq!(stamps(b"@345 "), (vec![345], 5));
        assert_eq!(stamps(b"nothing"), (vec![], 7));
    }
}
