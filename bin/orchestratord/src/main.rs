//! orchestratord's process: parse, run, say why it failed.
#![forbid(unsafe_code)]

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use orchestratord::cli::{Cli, Command};
use orchestratord::{exit, explain, journal, run, runtime, serve, token, verify};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let command = cli.command.unwrap_or(Command::Serve);
    let runtime = match runtime::build(matches!(command, Command::Serve)) {
        Ok(runtime) => runtime,
        Err(error) => return report(&anyhow::Error::new(error).context("starting the async runtime")),
    };
    let config = cli.config.as_deref();
    let result = runtime.block_on(async {
        match command {
            Command::Serve => serve::serve(config).await,
            Command::Run(args) => run::run(config, &args).await,
            Command::Config(command) => explain::run(config, &command),
            Command::Verify(args) => verify::run(config, &args).await,
            Command::Token(command) => token::run(config, &command),
            Command::Journal(command) => journal::run(config, &command),
        }
    });
    // A blocking probe or compile step must not hold up the exit.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&error),
    }
}

fn report(error: &anyhow::Error) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "error: {error:#}");
    exit::code(error)
}
