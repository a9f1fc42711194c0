//! Repository chores: `cargo xtask <command>`.
#![forbid(unsafe_code)]

mod bench;
mod contracts;
mod cuda_compile;
mod dist;
mod floors;
mod gpu_check;
mod loom;
mod mutants;
mod proof;
mod schemathesis;
mod simulate;
#[cfg(test)]
mod sleeps;
mod soak;
mod supply;
mod trace;
mod train;
#[cfg(test)]
mod walls;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Repository chores of llama-orch")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write contracts/openapi from the operations and types in contracts/wire
    RegenOpenapi,
    /// Write contracts/schemas from the types in contracts/wire
    RegenSchema,
    /// Check that every dependency goes down a floor
    Floors,
    /// Print which test holds which requirement of .specs
    Trace,
    /// Train the haiku model from scratch and write it where builtin:haiku takes it from
    TrainHaiku,
    /// Compile and link llama.cpp for CUDA with the managed toolkit; needs no card and takes hours
    CudaCompile {
        /// Compute capability
        #[arg(long, default_value = "86")]
        architecture: String,
        /// A further -DNAME=VALUE, as in `provisioning.cmake_flags`; -DGGML_CUDA_FA=OFF leaves out what takes longest
        #[arg(long, allow_hyphen_values = true)]
        cmake_flag: Vec<String>,
    },
    /// Run the real thing on an NVIDIA card, hold the estimates against it, and write a report
    GpuCheck(gpu_check::Options),
    /// Serve simulated days on the real queue and print what they show
    Simulate,
    /// Try the whole API with cases that schemathesis makes from its document
    Schemathesis(schemathesis::Options),
    /// Check licences, bans, duplicates and sources with cargo-deny
    Deny,
    /// Write a CycloneDX list of what is linked into each program to target/sbom
    Sbom,
    /// Build the release twice and compare the programs; takes two release builds
    Reproducible,
    /// Build the programs as they are shipped, orchestratord optimised for the load that it serves
    Dist(dist::Options),
    /// Try the interleavings of everything that has a loom model, in a build of its own
    Loom,
    /// Break the pure cores in every known way and see that a test notices, with cargo-mutants
    Mutants {
        /// registry, admission, placement, breaker, handoff-diff, flags, sse; all of them when absent
        core: Option<String>,
    },
    /// Run packages' unit and integration tests and keep what came of each in proof bundles
    Proof {
        /// As Cargo names them
        #[arg(required = true)]
        packages: Vec<String>,
    },
    /// Run one suite until it fails, or for an hour
    SoakTests {
        /// unit, integration, bdd, chaos, determinism or e2e
        suite: String,
        /// How long, in minutes
        #[arg(long, default_value_t = 60)]
        minutes: u64,
    },
    /// Measure what the control plane costs, against the bare engine, and print the ratios
    Bench(bench::Options),
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::RegenOpenapi => contracts::write(&contracts::openapi()?),
        Command::RegenSchema => contracts::write(&contracts::schemas()?),
        Command::Floors => floors::check(),
        Command::Trace => {
            use std::io::Write as _;
            std::io::stdout().write_all(trace::print()?.as_bytes())?;
            Ok(())
        }
        Command::TrainHaiku => train::haiku(),
        Command::CudaCompile { architecture, cmake_flag } => cuda_compile::run(&architecture, cmake_flag),
        Command::GpuCheck(options) => gpu_check::run(&options),
        Command::Simulate => simulate::run(),
        Command::Schemathesis(options) => schemathesis::run(&options),
        Command::Deny => supply::deny::run(),
        Command::Sbom => supply::sbom::run(),
        Command::Reproducible => supply::reproducible::run(),
        Command::Dist(options) => dist::run(&options),
        Command::Loom => loom::run(),
        Command::Mutants { core } => mutants::run(core.as_deref()),
        Command::Proof { packages } => proof::run(&packages),
        Command::SoakTests { suite, minutes } => {
            soak::run(&suite, std::time::Duration::from_secs(minutes.saturating_mul(60)))
        }
        Command::Bench(options) => bench::run(&options),
    }
}

/// Where cargo builds; as it was asked for from here, because cargo is called elsewhere.
fn target() -> std::path::PathBuf {
    let asked = std::env::var_os("CARGO_TARGET_DIR").filter(|dir| !dir.is_empty());
    let dir = asked.map_or_else(|| root().join("target"), std::path::PathBuf::from);
    std::path::absolute(&dir).unwrap_or(dir)
}

/// The repository's root: this package's parent directory.
fn root() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
