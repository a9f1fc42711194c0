//! The daemon: parses its command line, runs, and says in one line why it ended.
#![forbid(unsafe_code)]

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use config_loader::Env;
use pool_managerd::daemon::{DaemonError, run};

/// Blocking work is told to stop before this; a second signal waits for nothing.
const LINGER: Duration = Duration::from_secs(2);

/// Runs engines: starts, watches and restarts every pool of the configuration.
#[derive(Debug, Parser)]
#[command(name = "pool-managerd", version)]
struct Arguments {
    /// The configuration file; without it the built-in configuration with one small model.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return failed(1, &format!("cannot start the async runtime: {error}")),
    };
    let ended: Result<(), DaemonError> = runtime.block_on(async {
        let env = Env::from_process()?;
        run(arguments.config.as_deref(), &env).await
    });
    let linger = if matches!(ended, Err(DaemonError::Impatient)) { Duration::ZERO } else { LINGER };
    runtime.shutdown_timeout(linger);
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(error.exit_code(), &error.for_people()),
    }
}

fn failed(code: u8, why: &str) -> ExitCode {
    // A closed stderr must not turn an explained end into a panic.
    let _nobody_listens = writeln!(std::io::stderr(), "pool-managerd: {why}");
    ExitCode::from(code)
}
