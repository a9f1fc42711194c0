//! What a stream costs on its way: the same paced, stamped tokens of `stub-llama` read directly,
//! through nginx (when it is installed) and through orchestratord's `/v1` and `/v2`, one after the
//! other at the same rate, from few streams to many. Token rate is held, so that cost per token can
//! be compared between counts of streams. Tokens come evenly spread, so that what is added is the way's
//! own and not the wait behind the tokens of other streams; `--bursts` has them come as one batch's do.
//! A machine that others share is now faster and now slower: `--together` measures nginx and orchestratord at
//! the same time, so that what they cost can be compared, and what they add, beside each other, cannot.

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
use super::stats::Sample;

/// How much and how long.
pub(super) struct Plan {
    pub(super) streams: Vec<u32>,
    /// Tokens per second over all streams.
    pub(super) rate: u32,
    /// Of one measurement.
    pub(super) window: Duration,
    /// Measurements of each kind, in turn; what is printed is the middle of them.
    pub(super) rounds: u32,
    /// Whether tokens come many at a time.
    pub(super) bursts: bool,
    /// Whether all ways are measured at once, each with its share of the rate.
    pub(super) together: bool,
}

/// One way that tokens take.
struct Row {
    name: &'static str,
    rounds: Vec<Measured>,
}

impl Row {
    /// The middle of what the rounds say.
    fn middle(&self, of: impl Fn(&Measured) -> f64) -> f64 {
        Sample::new(self.rounds.iter().map(of).collect()).quantile(0.5)
    }

    /// The middle of how many times as much it is as in the same round of another way.
    fn times(&self, to: &Self, of: impl Fn(&Measured) -> f64) -> f64 {
        let ratios = self.rounds.iter().zip(&to.rounds).map(|(here, there)| of(here) / of(there));
        Sample::new(ratios.collect()).quantile(0.5)
    }

    /// The middle of how much more it is than in the same round of another way.
    fn added(&self, to: &Self, of: impl Fn(&Measured) -> f64) -> f64 {
        let differences = self.rounds.iter().zip(&to.rounds).map(|(here, there)| of(here) - of(there));
        Sample::new(differences.collect()).quantile(0.5)
    }
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
        for row in &rows {
            writeln!(out, "{}", line(streams, row, &rows[0]))?;
        }
        let named = |name: &str| rows.iter().find(|row| row.name == name);
        if let (Some(nginx), Some(v1), Some(v2)) = (named("nginx"), named("/v1"), named("/v2")) {
            let [v1, v2] = [v1, v2].map(|row| row.times(nginx, Measured::cpu_us));
            ratios.push(format!("- {streams} streams: /v1 costs {v1:.2} × nginx per token, /v2 {v2:.2} ×"));
        }
    }
    writeln!(out, "\n{}", ratios.join("\n"))?;
    Ok(())
}

fn line(streams: u32, row: &Row, direct: &Row) -> String {
    let [p50, p99] = [0.5, 0.99].map(|q| move |measured: &Measured| measured.latencies.quantile(q));
    let has_process = row.rounds.iter().all(|measured| measured.has_process);
    let process = |text: String| if has_process { text } else { "–".to_owned() };
    format!(
        "| {streams} | {} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {} | {} |",
        row.name,
        row.middle(|measured| measured.tokens_per_s),
        row.middle(p50),
        row.middle(p99),
        row.added(direct, p50),
        row.added(direct, p99),
        process(format!("{:.1}", row.middle(Measured::cpu_us))),
        process(format!("{:.1}", row.middle(|measured| measured.rss_per_stream_kib))),
    )
}

/// So many streams through one orchestratord with so many threads, over each of its ways in turn; nothing is
/// measured.
pub(super) async fn train(binaries: &Binaries, streams: u32, threads: u32) -> Result<()> {
    const RATE: u32 = 3_200;
    const WINDOW: Duration = Duration::from_secs(3);
    let pace = Duration::from_millis(u64::from((streams * 1_000 / RATE).max(1)));
    let stub = StubProcess::start(&binaries.stub, streams, pace)?;
    let load = Load { streams, pace, window: WINDOW, bursts: false };
    let orchestratord = Orchestratord::start_with(&binaries.orchestratord, stub.addr(), Some(threads))?;
    for api in [Api::Chat, Api::Tasks] {
        load.run(orchestratord.addr(), api, &[]).await?;
        stub.until_idle().await?;
    }
    orchestratord.stop()
}

/// One count of streams, over every way, all of them in turn in each round.
async fn at(binaries: &Binaries, plan: &Plan, streams: u32) -> Result<Vec<Row>> {
    let mut rows: Vec<Row> = Vec::new();
    for _ in 0..plan.rounds {
        let measured = match plan.together {
            true => round_together(binaries, plan, streams).await?,
            false => round(binaries, plan, streams).await?,
        };
        for (name, measured) in measured {
            match rows.iter_mut().find(|row| row.name == name) {
                Some(row) => row.rounds.push(measured),
                None => rows.push(Row { name, rounds: vec![measured] }),
            }
        }
    }
    Ok(rows)
}

async fn round(binaries: &Binaries, plan: &Plan, streams: u32) -> Result<Vec<(&'static str, Measured)>> {
    let pace = Duration::from_millis(u64::from((streams * 1_000 / plan.rate).max(1)));
    let stub = StubProcess::start(&binaries.stub, streams, pace)?;
    let load = Load { streams, pace, window: plan.window, bursts: plan.bursts };
    let mut rows = Vec::new();
    let measured = load.run(stub.addr(), Api::Chat, &[]).await.context("directly")?;
    rows.push(("directly", measured));
    stub.until_idle().await?;
    if let Some(nginx) = Nginx::start(stub.addr())? {
        let measured = load.run(nginx.addr(), Api::Chat, &nginx.pids()?).await.context("through nginx")?;
        rows.push(("nginx", measured));
        stub.until_idle().await?;
    }
    for (name, api) in [("/v1", Api::Chat), ("/v2", Api::Tasks)] {
        let orchestratord = Orchestratord::start(&binaries.orchestratord, stub.addr())?;
        let pids = [orchestratord.pid()];
        let measured = load.run(orchestratord.addr(), api, &pids).await.with_context(|| name.to_owned())?;
        rows.push((name, measured));
        drop(orchestratord);
        stub.until_idle().await?;
    }
    Ok(rows)
}

/// All ways at once; the first is nginx, where it is installed.
async fn round_together(
    binaries: &Binaries,
    plan: &Plan,
    streams: u32,
) -> Result<Vec<(&'static str, Measured)>> {
    const WAYS: u32 = 3;
    let pace = Duration::from_millis(u64::from((WAYS * streams * 1_000 / plan.rate).max(1)));
    let stub = StubProcess::start(&binaries.stub, WAYS * streams, pace)?;
    let load = Load { streams, pace, window: plan.window, bursts: plan.bursts };
    let nginx = Nginx::start(stub.addr())?;
    let orchestratord = || Orchestratord::start(&binaries.orchestratord, stub.addr());
    let (chat, tasks) = (orchestratord()?, orchestratord()?);
    let through_nginx = async {
        let Some(nginx) = &nginx else { return Ok(None) };
        load.run(nginx.addr(), Api::Chat, &nginx.pids()?).await.map(Some)
    };
    let (chat_pids, tasks_pids) = ([chat.pid()], [tasks.pid()]);
    let (through_nginx, v1, v2) = tokio::join!(
        through_nginx,
        load.run(chat.addr(), Api::Chat, &chat_pids),
        load.run(tasks.addr(), Api::Tasks, &tasks_pids),
    );
    let mut rows: Vec<_> =
        through_nginx.context("through nginx")?.map(|row| ("nginx", row)).into_iter().collect();
    rows.push(("/v1", v1.context("/v1")?));
    rows.push(("/v2", v2.context("/v2")?));
    Ok(rows)
}
