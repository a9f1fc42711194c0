//! The command line: parse, load the configuration, ensure or plan each pool, print.

use std::cell::RefCell;
use std::ffi::OsString;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use config_loader::Env;
use provisioners_engine_provisioner::{Cancel, EngineProvisioner, EnsureError, Observer};
use wire::config::PoolConfig;
use wire::{PoolId, PreparationStep, StepStatus};

#[derive(Parser)]
#[command(
    name = "engine-provisioner",
    version,
    about = "Fetches and builds llama.cpp, stages the model, prints what to launch"
)]
struct Cli {
    /// Configuration file; without it ORCHD_CONFIG, else the built-in default.
    #[arg(long, global = true)]
    config: Option<PathBuf>,
    /// Only this pool.
    #[arg(long, global = true)]
    pool: Option<PoolId>,
    /// One line of JSON for each progress update on stderr, for programs.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Option<Verb>,
}

#[derive(Subcommand)]
enum Verb {
    /// Print the steps and why; fetch, write and build nothing.
    Plan,
}

const USAGE: u8 = 2;

pub(crate) fn run(args: impl Iterator<Item = OsString>) -> u8 {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { USAGE } else { 0 };
        }
    };
    match prepare(&cli) {
        Ok(()) => 0,
        Err(Failure { message, code }) => {
            say(&format!("engine-provisioner: {message}"));
            code
        }
    }
}

struct Failure {
    message: String,
    code: u8,
}

impl From<EnsureError> for Failure {
    fn from(error: EnsureError) -> Self {
        let mut message = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(inner) = source {
            message = format!("{message}: {inner}");
            source = inner.source();
        }
        Self { message, code: error.exit_code() }
    }
}

fn prepare(cli: &Cli) -> Result<(), Failure> {
    let usage = |message: String| Failure { message, code: USAGE };
    let env = Env::from_process().map_err(|e| usage(e.to_string()))?;
    let loaded = config_loader::load(cli.config.as_deref(), &env).map_err(|e| usage(e.to_string()))?;
    let pools = chosen(cli, &loaded.config.pools).map_err(usage)?;
    let provisioner = EngineProvisioner::new(&loaded.config.paths.cache, &env);
    let cancel = Cancel::new();
    cancel_on_signal(&cancel).map_err(|e| usage(format!("cannot listen for signals: {e}")))?;
    for pool in pools {
        if matches!(cli.command, Some(Verb::Plan)) {
            print(&provisioner.plan(pool, &cancel)?.to_string());
            continue;
        }
        let prepared = provisioner.ensure_pool(pool, &Progress::new(cli.json), &cancel)?;
        // One line per pool: its replicas differ in nothing but their name.
        if let Some(first) = prepared.first() {
            let line = serde_json::to_string(first).map_err(|e| usage(e.to_string()))?;
            print(&format!("{line}\n"));
        }
    }
    Ok(())
}

fn chosen<'a>(cli: &Cli, pools: &'a [PoolConfig]) -> Result<Vec<&'a PoolConfig>, String> {
    let Some(wanted) = &cli.pool else { return Ok(pools.iter().collect()) };
    let found = pools.iter().find(|pool| pool.id == *wanted);
    let known: Vec<_> = pools.iter().map(|pool| pool.id.as_str()).collect();
    let unknown =
        || format!("--pool {wanted}: there is no such pool; the configuration has: {}", known.join(", "));
    found.map(|pool| vec![pool]).ok_or_else(unknown)
}

/// Ctrl-C and TERM ask the work to stop; it then kills its helpers and returns.
fn cancel_on_signal(cancel: &Cancel) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let guard = runtime.enter();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    drop(guard);
    let cancel = cancel.clone();
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        cancel.cancel();
    });
    Ok(())
}

/// Progress lines: on a terminal each step rewrites its line, else one line per change or 5 percent.
struct Progress {
    json: bool,
    terminal: bool,
    last: RefCell<(String, u64)>,
}

impl Progress {
    fn new(json: bool) -> Self {
        Self { json, terminal: std::io::stderr().is_terminal(), last: RefCell::default() }
    }

    fn worth_a_line(&self, step: &PreparationStep) -> bool {
        let mut last = self.last.borrow_mut();
        let part = match (step.bytes_done, step.bytes_total) {
            (Some(done), Some(total)) if total > 0 => 1 + done * 20 / total,
            _ => 0,
        };
        let phase = if part == 0 { step.description.clone() } else { step.id.clone() };
        let now = (phase, part);
        let changed = *last != now;
        *last = now;
        changed
    }
}

impl Observer for Progress {
    fn step(&self, step: &PreparationStep) {
        if self.json {
            say(&serde_json::to_string(step).unwrap_or_default());
            return;
        }
        // A failure is printed once, as the error that ends the program.
        if step.status == StepStatus::Failed || !self.terminal && !self.worth_a_line(step) {
            return;
        }
        let mut line = format!("{}: {}", step.id, step.description);
        if let Some(left) = step.estimated_ms.filter(|_| step.status == StepStatus::Running) {
            line = format!("{line}, about {} left", duration(left));
        }
        if self.terminal && step.bytes_done.is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[2K{line}");
        } else if self.terminal {
            let _ = writeln!(std::io::stderr(), "\r\x1b[2K{line}");
        } else {
            say(&line);
        }
    }

    fn notice(&self, pool: &PoolId, text: &str) {
        if !self.json {
            say(&format!("{pool}: {text}"));
        }
    }
}

fn duration(ms: u64) -> String {
    match ms / 1000 {
        seconds if seconds < 90 => format!("{seconds} s"),
        seconds => format!("{} min", seconds.div_ceil(60)),
    }
}

fn print(text: &str) {
    // A closed pipe is the reader's choice.
    let _ = write!(std::io::stdout(), "{text}");
}

fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
