//! `haiku-trainer train` makes the model file; `haiku-trainer eval` measures it.

use std::io::{Write, stdout};
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use haiku_trainer::corpus::Lists;
use haiku_trainer::eval::{Client, measure};
use haiku_trainer::gguf::export;
use haiku_trainer::train::{Plan, train};

/// Makes and measures the haiku model.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Train the model and write it as a GGUF file.
    Train {
        /// Where the file goes.
        #[arg(long, default_value = "haiku.gguf")]
        out: PathBuf,
        /// Fewer steps than the shipped run, to look at a learning curve.
        #[arg(long)]
        steps: Option<usize>,
    },
    /// Put the committed lists to a running llama-server.
    Eval {
        /// The server, as http://host:port.
        #[arg(long)]
        url: String,
        /// How many of the five phrasings to use.
        #[arg(long, default_value_t = 5)]
        phrasings: usize,
        /// Use the five phrasings that training cannot produce instead.
        #[arg(long)]
        held_out: bool,
    },
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Train { out, steps } => make(&out, steps),
        Command::Eval { url, phrasings, held_out } => judge(&url, phrasings, held_out),
    }
}

fn make(out: &PathBuf, steps: Option<usize>) -> Result<()> {
    let mut plan = Plan::shipped();
    plan.schedule.steps = steps.unwrap_or(plan.schedule.steps);
    let model = train(&plan, &mut stdout())?;
    let bytes = export(&model);
    std::fs::write(out, &bytes).with_context(|| format!("writing {}", out.display()))?;
    let summary = model.summary;
    let speed = summary.tokens as f64 / summary.elapsed.as_secs_f64();
    writeln!(
        stdout(),
        "{} bytes; {} tokens in {:.0} s ({speed:.0} tokens/s); last loss {:.4}",
        bytes.len(),
        summary.tokens,
        summary.elapsed.as_secs_f64(),
        summary.loss,
    )?;
    Ok(())
}

fn judge(url: &str, phrasings: usize, held_out: bool) -> Result<()> {
    let client = Client::new(url)?;
    let rows = measure(&Lists::load(), phrasings, held_out, |prompt| client.chat(prompt))?;
    let mut out = stdout();
    for row in &rows {
        writeln!(out, "{:24} {:5}/{:5}  {:6.2} %", row.name, row.passed, row.asked, row.percent())?;
    }
    let (passed, asked) = rows.iter().fold((0, 0), |(p, a), r| (p + r.passed, a + r.asked));
    writeln!(
        out,
        "{:24} {passed:5}/{asked:5}  {:6.2} %",
        "all",
        100.0 * passed as f64 / asked.max(1) as f64
    )?;
    for failure in rows.iter().flat_map(|r| &r.failures) {
        writeln!(out, "  {failure}")?;
    }
    Ok(())
}
