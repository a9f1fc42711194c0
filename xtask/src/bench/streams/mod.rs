//! What a stream costs on its way: the same paced, stamped tokens of `stub-llama` read directly,
//! through nginx (when it is installed) and through orchestratord's `/v1` and `/v2`, one after the
//! other at the same rate, from few streams to many. Token rate is held, so that cost per token can
//! be compared between counts of streams.

mod load;
pub(super) mod process;
mod targets;

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result};

use self::load::{Api, Load, Measured};
use self::targets::Nginx;
pub(super) use self::targets::{Orchestratord, StubProcess};
use super::Binaries;

/// How much and how long.
pub(super) struct Plan {
    pub(super) streams: Vec<u32>,
    /// Tokens per second over all streams.
    pub(super) rate: u32,
    /// Of one measurement.
    pub(super) window: Duration,
}

struct Row {
    name: &'static str,
    measured: Measured,
}

/// Writes each row as soon as it is measured: the last counts take minutes and may fail.
pub(super) async fn measure(binaries: &Binaries, plan: &Plan, out: &mut impl Write) -> Result<()> {
    writeln!(
        out,
        "| streams | through | tokens/s | latency p50 µs | p99 µs | added p50 µs | added p99 µs | CPU µs/token | RSS KiB/stream |\n|--:|---|--:|--:|--:|--:|--:|--:|--:|"
    )?;
    let mut ratios = Vec::new();
    for &streams in &plan.streams {
        let rows = at(binaries, plan, streams).await.with_context(|| format!("with {streams} streams"))?;
        let direct = rows.first().map(|row| row.measured.clone()).unwrap_or_default();
        for row in &rows {
            writeln!(out, "{}", line(streams, row, &direct))?;
        }
        let cost = |name: &str| rows.iter().find(|row| row.name == name).map(|row| row.measured.cpu_us());
        if let (Some(nginx), Some(v1), Some(v2)) = (cost("nginx"), cost("/v1"), cost("/v2")) {
            let (v1, v2) = (v1 / nginx, v2 / nginx);
            ratios.push(format!("- {streams} streams: /v1 costs {v1:.2} × nginx per token, /v2 {v2:.2} ×"));
        }
    }
    writeln!(out, "\n{}", ratios.join("\n"))?;
    Ok(())
}

fn line(streams: u32, row: &Row, direct: &Measured) -> String {
    let Measured { latencies, tokens_per_s, rss_per_stream_kib, .. } = &row.measured;
    let (p50, p99) = (latencies.quantile(0.5), latencies.quantile(0.99));
    let added = |q| latencies.quantile(q) - direct.latencies.quantile(q);
    let process = |text: String| if row.measured.has_process { text } else { "–".to_owned() };
    format!(
        "| {streams} | {} | {tokens_per_s:.0} | {p50:.0} | {p99:.0} | {:.0} | {:.0} | {} | {} |",
        row.name,
        added(0.5),
        added(0.99),
        process(format!("{:.1}", row.measured.cpu_us())),
        process(format!("{rss_per_stream_kib:.1}")),
    )
}

/// One count of streams, over every way.
async fn at(binaries: &Binaries, plan: &Plan, streams: u32) -> Result<Vec<Row>> {
    let pace = Duration::from_millis(u64::from((streams * 1_000 / plan.rate).max(1)));
    let stub = StubProcess::start(&binaries.stub, streams, pace)?;
    let load = Load { streams, pace, window: plan.window };
    let mut rows = Vec::new();
    let measured = load.run(stub.addr(), Api::Chat, &[]).await.context("directly")?;
    rows.push(Row { name: "directly", measured });
    stub.until_idle().await?;
    if let Some(nginx) = Nginx::start(stub.addr())? {
        let measured = load.run(nginx.addr(), Api::Chat, &nginx.pids()?).await.context("through nginx")?;
        rows.push(Row { name: "nginx", measured });
        stub.until_idle().await?;
    }
    for (name, api) in [("/v1", Api::Chat), ("/v2", Api::Tasks)] {
        let orchestratord = Orchestratord::start(&binaries.orchestratord, stub.addr())?;
        let pids = [orchestratord.pid()];
        let measured = load.run(orchestratord.addr(), api, &pids).await.with_context(|| name.to_owned())?;
        rows.push(Row { name, measured });
        drop(orchestratord);
        stub.until_idle().await?;
    }
    Ok(rows)
}
