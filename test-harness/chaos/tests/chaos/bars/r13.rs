//! R13: thousands of readers that read nothing, and a few that do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::json;
use socket2::{Domain, Socket, Type};
use test_harness_bdd::until_within;
use test_harness_e2e_haiku::Reader;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::house::{House, percentile};
use crate::processes;
use crate::run::{Run, reached_within};

const HEALTHY: usize = 10;

/// Enough for any socket's buffers.
const STUCK_TOKENS: usize = 8_000;

/// Within this, a reader that takes nothing is sent away.
const EVICTED: Duration = Duration::from_secs(30);

pub(super) async fn run(run: Arc<Run>) -> Result<()> {
    let many = descriptors_for(run.pick(400, 4_000))?;
    // Two pools: what the stuck readers do not read was said at once, what the others read comes slowly.
    let config = "pools:\n\
        - { id: p, model: '$MODEL', slots: 10, ctx: 100000, engine: $STUB_ENGINE, env: { STUB_TOKEN_MS: '20' } }\n\
        - { id: q, model: '$MODEL', ctx: 100000, engine: $STUB_ENGINE }\n";
    let house = House::start(&run, config).await?;
    house.is_ready().await?;
    let said =
        house.submit(json!({"model": "q", "max_tokens": STUCK_TOKENS, "detach_grace_ms": 600_000})).await?;
    reached_within("the long answer is there", Duration::from_secs(120), || async {
        Ok(house.api.get(&format!("/v2/tasks/{said}")).await?["state"] == "done")
    })
    .await?;
    let mut readers = Vec::new();
    for _ in 0..HEALTHY {
        let task = house.submit(json!({"max_tokens": 50_000})).await?;
        readers.push(house.follow(&task, None).await?);
    }
    let quiet = listen(&mut readers, async {
        // How long the undisturbed stream is listened to.
        tokio::time::sleep(Duration::from_secs(5)).await;
        Ok(())
    })
    .await?
    .0;
    let pid = house.orchestratord.pid()?.as_raw();
    let before = processes::resident_kib(pid);
    let evictions = house.api.counter("orchd_stream_evictions_total").await?;
    let (crowded, (most, evicted)) = listen(&mut readers, async {
        let address = house.api.url("").trim_start_matches("http://").to_owned();
        let mut stuck = Vec::new();
        for _ in 0..many {
            stuck.push(stuck_reader(&address, &said).await?);
            // Nothing above waits, and whoever reads here is to be heard between two of them.
            tokio::task::yield_now().await;
        }
        let mut most = before;
        let evicted = until_within("all are evicted", EVICTED * 2, Duration::from_millis(100), || {
            most = most.max(processes::resident_kib(pid));
            async {
                let now = house.api.counter("orchd_stream_evictions_total").await?;
                ensure!(now - evictions >= many as f64, "{} of {many}", now - evictions);
                Ok(true)
            }
        });
        let evicted = evicted.await?;
        anyhow::Ok((most, evicted))
    })
    .await?;
    run.time(format!("{many} stuck: p99 gap of {HEALTHY} healthy"), crowded, quiet * 2);
    let each = most.saturating_sub(before) as f64 / many as f64;
    run.amount("memory for each", each, 40.0, "KiB");
    run.time("all evicted", evicted, EVICTED);
    Ok(())
}

/// Reads all streams while something happens: the p99 of the times between tokens, and what came of it.
async fn listen<T>(
    readers: &mut [Reader],
    happens: impl Future<Output = Result<T>>,
) -> Result<(Duration, T)> {
    let over = AtomicBool::new(false);
    let happens = async {
        let came = happens.await;
        over.store(true, Ordering::SeqCst);
        came
    };
    let all = futures_util::future::try_join_all(readers.iter_mut().map(|reader| gaps(reader, &over)));
    let (gaps, came) = tokio::join!(all, happens);
    let mut gaps: Vec<Duration> = gaps?.into_iter().flatten().collect();
    Ok((percentile(&mut gaps, 99), came?))
}

async fn gaps(reader: &mut Reader, over: &AtomicBool) -> Result<Vec<Duration>> {
    let (mut gaps, mut last) = (Vec::new(), None);
    while !over.load(Ordering::SeqCst) {
        let event = reader.until(|event| event.name != "started").await?;
        ensure!(event.name == "token", "a healthy stream ended with {event:?}");
        let now = Instant::now();
        gaps.extend(last.map(|last| now - last));
        last = Some(now);
    }
    Ok(gaps)
}

/// Asks for a long answer and reads nothing of it.
async fn stuck_reader(address: &str, task: &str) -> Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).context("a socket")?;
    socket.set_recv_buffer_size(4096).context("a small buffer")?;
    let to: std::net::SocketAddr = address.parse().context("the address")?;
    socket.connect(&to.into()).context("connecting")?;
    socket.set_nonblocking(true).context("not blocking")?;
    let mut stream = TcpStream::from_std(socket.into()).context("a stream")?;
    let request = format!("GET /v2/tasks/{task}/events HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.context("asking")?;
    Ok(stream)
}

/// As many readers as asked for, if this process may hold their connections.
fn descriptors_for(many: usize) -> Result<usize> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).context("asking for the limit of descriptors")?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).context("raising the limit of descriptors")?;
    let room = usize::try_from(most).unwrap_or(usize::MAX).saturating_sub(500);
    ensure!(room >= many, "{many} connections need a hard limit of {} descriptors; it is {most}", many + 500);
    Ok(many)
}
