//! Progress for whoever waits at a terminal, reads a log, or parses JSON lines.

use std::cell::RefCell;
use std::io::{IsTerminal as _, Write as _};

use provisioners_engine_provisioner::Observer;
use wire::{PoolId, PreparationStep, StepStatus};

use super::say;

/// Progress lines: on a terminal each step rewrites its line, else one line per change or 5 percent.
pub(super) struct Progress {
    json: bool,
    terminal: bool,
    last: RefCell<(String, u64)>,
}

impl Progress {
    pub(super) fn new(json: bool) -> Self {
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
        match self.json {
            true => say(&serde_json::json!({ "notice": text, "pool_id": pool }).to_string()),
            false => say(&format!("{pool}: {text}")),
        }
    }
}

fn duration(ms: u64) -> String {
    match ms / 1000 {
        seconds if seconds < 90 => format!("{seconds} s"),
        seconds => format!("{} min", seconds.div_ceil(60)),
    }
}
