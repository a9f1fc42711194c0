//! `cargo xtask bench`: what the control plane costs, as ratios on one machine, the sides in turn.
//! Builds the release binaries first, its own among them, so that the client is no bottleneck.

mod estimates;
mod first_token;
mod hangup;
mod manager;
mod start;
mod stats;
mod streams;
mod tasks;
pub(crate) mod training;

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

#[derive(Args)]
pub(crate) struct Options {
    /// What to measure; everything without it
    #[arg(long, value_enum)]
    only: Vec<Section>,
    /// Requests for the time to the first token, on each side
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(10..))]
    requests: u32,
    /// Starts on each side
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(3..))]
    starts: u32,
    /// Counts of open streams
    #[arg(long, value_delimiter = ',', default_values_t = [16, 64, 256, 1024, 4096])]
    streams: Vec<u32>,
    /// Tokens per second over all streams
    #[arg(long, default_value_t = 3200, value_parser = clap::value_parser!(u32).range(100..))]
    rate: u32,
    /// Measure the release binaries as they are, from this program as it is, and build nothing
    #[arg(long)]
    as_built: bool,
    /// Measure this orchestratord and not the one of the release build; `cargo xtask dist` makes one
    #[arg(long)]
    orchestratord: Option<PathBuf>,
    /// Seconds of each measurement of streams
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Measurements of streams of each kind, in turn; the middle of them is printed
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Have the tokens of up to 64 streams come at once, as those of an engine's batch do
    #[arg(long)]
    bursts: bool,
    /// Measure nginx and orchestratord at the same time, each with a third of the tokens: for what they cost, not
    /// for what they add
    #[arg(long)]
    together: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Section {
    /// Second start, against the bare engine's
    Start,
    /// Time to the first token, against the bare engine's
    FirstToken,
    /// What a stream costs, against nginx and nothing
    Streams,
    /// From a client's hang-up to the engine
    Hangup,
    /// One-token tasks per second
    Tasks,
    /// How far off the start is that a task is told, while a queue stands
    Estimates,
    /// pool-managerd with ten replicas: idle, adopting, losing
    Manager,
}

/// What is measured, built for release.
struct Binaries {
    orchestratord: PathBuf,
    pool_managerd: PathBuf,
    stub: PathBuf,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    raise_descriptors()?;
    let named =
        |path: &PathBuf| std::fs::canonicalize(path).with_context(|| format!("finding {}", path.display()));
    let other = options.orchestratord.as_ref().map(named).transpose()?;
    if !options.as_built {
        build_for_release()?;
        if cfg!(debug_assertions) {
            return Err(release_self());
        }
    }
    let mut binaries = release_binaries();
    if let Some(other) = other {
        binaries.orchestratord = other;
    }
    let wanted = |section| options.only.is_empty() || options.only.contains(&section);
    let mut out = std::io::stdout().lock();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting tokio")?;
    if wanted(Section::Start) || wanted(Section::FirstToken) {
        let engine = test_harness_e2e_haiku::provisioned()?;
        writeln!(out, "engine {}", engine.engine_version)?;
        if wanted(Section::Start) {
            let large = start::Contestant::large(&engine, &crate::target().join("bench"))?;
            for contestant in [start::Contestant::builtin(&engine), large] {
                let starts = start::measure(&binaries.orchestratord, &contestant, options.starts)?;
                let (title, n) = (&contestant.title, options.starts);
                writeln!(
                    out,
                    "\n## Second start with {title}: seconds to ready, {n} starts each\n\n{starts}"
                )?;
            }
        }
        if wanted(Section::FirstToken) {
            let tokens = runtime.block_on(first_token::measure(&binaries.orchestratord, options.requests))?;
            let requests = options.requests;
            writeln!(
                out,
                "\n## Time to first token: milliseconds, {requests} requests each, in turn\n\n{tokens}"
            )?;
        }
    }
    if wanted(Section::Hangup) {
        let hangups = runtime.block_on(hangup::measure(&binaries.orchestratord))?;
        writeln!(out, "\n## From a client's hang-up to the engine: milliseconds\n\n{hangups}")?;
    }
    if wanted(Section::Tasks) {
        let tasks = runtime.block_on(tasks::measure(&binaries))?;
        writeln!(out, "\n## One-token tasks\n\n{tasks}")?;
    }
    if wanted(Section::Estimates) {
        let estimates = runtime.block_on(estimates::measure(&binaries.orchestratord))?;
        writeln!(out, "\n## Starts that tasks were told, under a steady load\n\n{estimates}")?;
    }
    if wanted(Section::Manager) {
        let manager = runtime.block_on(manager::measure(&binaries))?;
        writeln!(out, "\n## pool-managerd with ten replicas\n\n{manager}")?;
    }
    if wanted(Section::Streams) {
        let window = Duration::from_secs(u64::from(options.seconds));
        let (streams, rate) = (options.streams.clone(), options.rate);
        let plan = streams::Plan {
            streams,
            rate,
            window,
            rounds: options.rounds,
            bursts: options.bursts,
            together: options.together,
        };
        writeln!(out, "\n## Streams: {} tokens/s over all of them\n", options.rate)?;
        runtime.block_on(streams::measure(&binaries, &plan, &mut out))?;
    }
    Ok(())
}

/// Raises the limit of open files as far as it may, for this process and those that it starts.
fn raise_descriptors() -> Result<u64> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).context("asking how many files may be open")?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).context("raising how many files may be open")?;
    Ok(most)
}

fn build_for_release() -> Result<()> {
    build(&["orchestratord", "pool-managerd", "stub-llama", "xtask"])
}

fn build(packages: &[&str]) -> Result<()> {
    let status = stub_llama::cargo()
        .args(["build", "--release", "--target-dir"])
        .arg(crate::target())
        .env_remove("CARGO_BUILD_TARGET")
        .args(packages.iter().flat_map(|package| ["-p", package]))
        .current_dir(crate::root())
        .status()
        .context("building the release binaries")?;
    ensure!(status.success(), "cargo build --release failed; its messages are above");
    Ok(())
}

fn release_binaries() -> Binaries {
    let binary = |name| release_dir().join(name);
    Binaries {
        orchestratord: binary("orchestratord"),
        pool_managerd: binary("pool-managerd"),
        stub: binary("stub-llama"),
    }
}

fn release_dir() -> PathBuf {
    crate::target().join("release")
}

/// Goes on as the release build of this program; returns only with an error.
fn release_self() -> anyhow::Error {
    let binary = release_dir().join("xtask");
    let error = Command::new(&binary).args(std::env::args_os().skip(1)).exec();
    anyhow::Error::new(error).context(format!("running {}", binary.display()))
}
