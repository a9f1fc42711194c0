//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

pub use crate::tokens::Scope;

/// llama-orch's control plane: runs llama.cpp, queues tasks and streams their tokens.
#[derive(Debug, Parser)]
#[command(name = "orchestratord", version = crate::built::version_line())]
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
    /// The configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Ask again what a receipt is of, of the orchestratord that is listening, and say what differs; exit
    /// code 0: the same tokens, 1: others
    Verify(VerifyArgs),
    /// Tokens of callers
    #[command(subcommand)]
    Token(TokenCommand),
    /// The journal of tasks in the runtime directory, while no orchestratord uses it
    #[command(subcommand)]
    Journal(JournalCommand),
}

/// `orchestratord config`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print each value in force and who set it: the default, a line of the file, or a variable
    Explain {
        /// JSON lines, for programs
        #[arg(long)]
        json: bool,
    },
}

/// `orchestratord journal`.
#[derive(Debug, Subcommand)]
pub enum JournalCommand {
    /// Read it through and say what is damaged
    Check,
    /// Keep what can be read, set the damaged files aside, and say what is lost
    Repair,
}

/// `orchestratord token`.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token, print it once and add its digest to the configured tokens file; a running
    /// orchestratord lets it in within seconds
    New {
        /// What it allows: data submits tasks and sees its own, control sees and does everything
        #[arg(long, value_enum, default_value_t = Scope::Data)]
        scope: Scope,
        /// Who it is for, in logs and usage; tokens of one name are one caller
        #[arg(long, default_value = "default")]
        name: String,
    },
}

/// `orchestratord verify`.
#[derive(Debug, clap::Args)]
pub struct VerifyArgs {
    /// A file with a receipt, a transcript or a task's view, - for stdin; or the digest of a transcript, or
    /// the id of a task
    pub receipt: String,
    /// The body that submitted the task, for a receipt of a task that kept no transcript
    #[arg(long, value_name = "FILE")]
    pub request: Option<PathBuf>,
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
    /// Sampling temperature, 0 to 10; 0 always takes the likeliest token
    #[arg(long, default_value_t = 0.0, value_parser = temperature)]
    pub temperature: f64,
    /// Sampling seed
    #[arg(long)]
    pub seed: Option<u32>,
}

fn temperature(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..=10.0).contains(&value) => Ok(value),
        _ => Err("a temperature is a number from 0 to 10".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temperature_is_a_number_from_0_to_10() {
        let parse = |text| Cli::try_parse_from(["orchestratord", "run", "x", text]);
        for good in ["--temperature=0", "--temperature=0.7", "--temperature=10"] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in ["--temperature=NaN", "--temperature=-0.1", "--temperature=10.1", "--temperature=inf"] {
            assert_eq!(parse(bad).unwrap_err().exit_code(), 2, "{bad}");
        }
    }
}
