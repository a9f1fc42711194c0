//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// llama-orch's control plane: runs llama.cpp, queues tasks and streams their tokens.
#[derive(Debug, Parser)]
#[command(name = "orchestratord", version)]
pub struct Cli {
    /// Configuration file, YAML or JSON; without it one pool with the built-in small model runs
    #[arg(long, short, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What to do; without it the control plane runs until it is stopped
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the control plane until it is stopped (the default)
    Serve,
    /// Ask one question and print the answer as it comes; uses the orchestratord that is already
    /// listening, or runs one for as long as it takes
    Run(RunArgs),
}

/// `orchestratord run`.
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// What to ask
    pub prompt: String,
    /// Pool id, alias or model name; the first pool without it
    #[arg(long, short)]
    pub model: Option<String>,
    /// Tokens to generate at most
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_tokens: u32,
    /// Sampling temperature; 0 always takes the likeliest token
    #[arg(long, default_value_t = 0.0)]
    pub temperature: f64,
    /// Sampling seed
    #[arg(long)]
    pub seed: Option<u32>,
}
