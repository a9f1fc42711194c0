//! A life that ended: what was observed ([`Fault`]) and what is said about it ([`Loss`]).

use std::path::Path;
use std::time::Duration;

use child::Exit;
use wire::pool::ReplicaError;

use crate::classify::{Cause, Ending, classify};
use crate::progress::Stall;

/// So many of the engine's last lines are shown.
pub(crate) const LOG_LINES: usize = 40;

/// What ended a life, as it was observed.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The process exited.
    Exited(Exit),
    /// It did not become ready within this time.
    Slow { budget: Duration, last: String },
    /// The port answers, but the socket is somebody else's.
    ForeignSocket { port: u16 },
    /// Healthy by its own words, yet one token could not be completed.
    Canary(String),
    /// So many liveness probes in a row failed; `stopped` by a signal, as was seen then.
    Hung { probes: u32, last: String, stopped: bool },
    /// Busy, and no token.
    Stalled(Stall),
}

impl Fault {
    /// An engine that does not answer any more.
    pub(crate) fn unresponsive(pid: u32, probes: u32, last: String) -> Self {
        Self::Hung { probes, last, stopped: child::is_stopped(pid) }
    }
}

/// What is said about a loss.
#[derive(Debug)]
pub(crate) struct Loss {
    pub(crate) cause: Cause,
    pub(crate) message: String,
    pub(crate) remedy: Option<String>,
    log_tail: Vec<String>,
}

impl Loss {
    /// A loss without a process.
    pub(crate) fn plain(cause: Cause, message: String) -> Self {
        Self { cause, message, remedy: Some(cause.remedy().to_owned()), log_tail: Vec::new() }
    }

    /// Puts a fault into words. `served`: it had been ready. `memory_killer`: the kernel's was at work.
    pub(crate) fn explain(
        fault: &Fault,
        served: bool,
        memory_killer: bool,
        log: &Path,
        log_tail: Vec<String>,
    ) -> Self {
        let cause = match fault {
            Fault::Exited(exit) => classify(Ending { exit: *exit, served, memory_killer }, &log_tail),
            Fault::Slow { .. } => Cause::StartupTimeout,
            Fault::ForeignSocket { .. } => Cause::PortTaken,
            Fault::Canary(_) => Cause::CanaryFailed,
            Fault::Hung { stopped: true, .. } => Cause::Suspended,
            Fault::Hung { .. } => Cause::Hung,
            Fault::Stalled(stall) if stall.ever => Cause::Stalled,
            Fault::Stalled(_) => Cause::Mute,
        };
        let when = if served { "while serving" } else { "while starting" };
        let what = match fault {
            Fault::Exited(exit) if cause == Cause::OomKilled => {
                format!("the kernel's memory killer ended the engine {when} ({exit})")
            }
            Fault::Exited(exit) => format!("the engine {exit} {when}"),
            Fault::Slow { budget, last } => {
                format!("the engine was not ready after {} s ({last}) and was stopped", budget.as_secs())
            }
            Fault::ForeignSocket { port } => format!("another process listens on port {port}"),
            Fault::Canary(why) => format!("the engine could not do the first thing it was asked: {why}"),
            Fault::Hung { probes, last, stopped } => {
                let state = if *stopped { "was stopped by a signal and " } else { "" };
                format!("the engine {state}missed {probes} liveness probes in a row ({last}) and was killed")
            }
            Fault::Stalled(stall) => stalled(stall),
        };
        let message = format!("{what}; its log is {}", log.display());
        Self { log_tail, ..Self::plain(cause, message) }
    }

    pub(crate) fn into_wire(self) -> ReplicaError {
        ReplicaError {
            cause: self.cause.as_str().to_owned(),
            message: self.message,
            remedy: self.remedy,
            log_tail: self.log_tail,
        }
    }
}

fn stalled(stall: &Stall) -> String {
    let seconds = stall.without_token.as_secs();
    let before =
        if stall.ever { "after it had generated before" } else { "and never had since it was ready" };
    let slots = if stall.silent { "; it did not show its slots either" } else { "" };
    format!(
        "the engine answered /health but generated nothing for {seconds} s while it was busy, {before}{slots}; \
         it was killed"
    )
}
