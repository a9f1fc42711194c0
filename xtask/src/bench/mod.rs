//! `cargo xtask bench`: what the control plane costs, as ratios on one machine. Builds the release
//! binary, prepares the engine, then measures starts and first tokens, the two sides in turn.

mod first_token;
mod start;
mod stats;

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Args;

#[derive(Args)]
pub(crate) struct Options {
    /// Requests for the time to the first token, on each side
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(10..))]
    requests: u32,
    /// Starts on each side
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(3..))]
    starts: u32,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let binary = release_binary()?;
    let engine = test_harness_e2e_haiku::provisioned()?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "engine {}", engine.engine_version)?;
    let large = start::Contestant::large(&engine, &target().join("bench"))?;
    for contestant in [start::Contestant::builtin(&engine), large] {
        let starts = start::measure(&binary, &contestant, options.starts)?;
        let (title, n) = (&contestant.title, options.starts);
        writeln!(out, "\n## Second start with {title}: seconds to ready, {n} starts each\n\n{starts}")?;
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting tokio")?;
    let tokens = runtime.block_on(first_token::measure(&binary, options.requests))?;
    writeln!(
        out,
        "\n## Time to first token: milliseconds, {} requests each, in turn\n\n{tokens}",
        options.requests
    )?;
    Ok(())
}

fn release_binary() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--release", "-p", "orchestratord"])
        .current_dir(crate::root())
        .status()
        .context("building the release binary")?;
    ensure!(status.success(), "cargo build --release failed; its messages are above");
    Ok(target().join("release/orchestratord"))
}

fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| crate::root().join("target"), PathBuf::from)
}
