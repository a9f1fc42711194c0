//! Preparation steps for a person: one line that moves on a terminal, a line now and then elsewhere.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use wire::{PreparationStep, StepStatus};

/// Lines of a step that only moves forward come at most this often.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Writes steps to stderr.
pub(crate) struct Progress {
    rewrites: bool,
    open_line: bool,
    told: HashMap<String, Told>,
}

struct Told {
    status: StepStatus,
    description: String,
    at: Instant,
}

impl Progress {
    /// Plain lines, for output that logs also go to.
    pub(crate) fn lines() -> Self {
        Self { rewrites: false, open_line: false, told: HashMap::new() }
    }

    /// One moving line where stderr is a terminal.
    pub(crate) fn moving() -> Self {
        Self { rewrites: std::io::stderr().is_terminal(), ..Self::lines() }
    }

    /// Shows a step, if it has anything new to say.
    pub(crate) fn step(&mut self, step: &PreparationStep) {
        if step.status == StepStatus::Pending {
            return;
        }
        let now = Instant::now();
        if let Some(told) = self.told.get(&step.id) {
            let moved = told.status != step.status;
            let due = self.rewrites || now.duration_since(told.at) >= LINE_EVERY;
            if !moved && (!due || told.description == step.description) {
                return;
            }
        }
        self.write(&line(step), step.status);
        let told = Told { status: step.status, description: step.description.clone(), at: now };
        self.told.insert(step.id.clone(), told);
    }

    /// Ends a moving line, so that other output starts on its own.
    pub(crate) fn clear(&mut self) {
        if std::mem::take(&mut self.open_line) {
            let _ = write!(std::io::stderr(), "\r\x1b[2K");
        }
    }

    fn write(&mut self, line: &str, status: StepStatus) {
        self.clear();
        let mut stderr = std::io::stderr().lock();
        if self.rewrites && status == StepStatus::Running {
            let _ = write!(stderr, "{line}");
            let _ = stderr.flush();
            self.open_line = true;
        } else {
            let _ = writeln!(stderr, "{line}");
        }
    }
}

fn line(step: &PreparationStep) -> String {
    let mark = match step.status {
        StepStatus::Completed => "✓",
        StepStatus::Failed => "✗",
        StepStatus::Pending | StepStatus::Running => "…",
    };
    let left = step.estimated_ms.filter(|_| step.status == StepStatus::Running);
    let left =
        left.map(|ms| format!(", about {} left", human(Duration::from_millis(ms)))).unwrap_or_default();
    let pool = step.id.split('/').next().unwrap_or_default();
    format!("{mark} {pool}: {}{left}", step.description)
}

fn human(duration: Duration) -> String {
    match duration.as_secs() {
        s @ 0..=89 => format!("{} s", s.max(1)),
        s => format!("{} min", s.div_ceil(60)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_step_says_how_long_it_takes() {
        let step = PreparationStep {
            id: "haiku/engine".to_owned(),
            kind: wire::StepKind::EngineProvision,
            description: "building llama-server: 43 %".to_owned(),
            status: StepStatus::Running,
            bytes_done: None,
            bytes_total: None,
            estimated_ms: Some(200_000),
        };
        assert_eq!(line(&step), "… haiku: building llama-server: 43 %, about 4 min left");
    }
}
