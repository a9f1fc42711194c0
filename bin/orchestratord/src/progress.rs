//! Preparation steps for a person: one line that moves on a terminal, a line now and then elsewhere.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use wire::pool::ReplicaError;
use wire::{Phase, PoolView, PreparationStep, ReplicaView, StepKind, StepStatus};

/// Lines of a step that only moves forward come at most this often. What goes on now in place of something
/// else is said at once.
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

impl Told {
    fn is_news(&self, step: &PreparationStep, now: Instant, rewrites: bool) -> bool {
        // Installing CMake after fetching the source is another activity; 7 % after 6 % is not.
        let activity = |text: &str| text.replace(|c: char| c.is_ascii_digit(), "");
        if self.status != step.status || activity(&self.description) != activity(&step.description) {
            return true;
        }
        self.description != step.description && (rewrites || now.duration_since(self.at) >= LINE_EVERY)
    }
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

    /// Shows a step, if it has anything new to say. That a step failed does not say what follows
    /// from it, and its reason is the pool's to tell: see [`losses`](Self::losses) and [`hopeless`].
    pub(crate) fn step(&mut self, step: &PreparationStep) {
        if step.status == StepStatus::Pending {
            return;
        }
        let now = Instant::now();
        if !self.told.get(&step.id).is_none_or(|told| told.is_news(step, now, self.rewrites)) {
            return;
        }
        if step.status != StepStatus::Failed {
            self.write(&line(step), step.status);
        }
        let told = Told { status: step.status, description: step.description.clone(), at: now };
        self.told.insert(step.id.clone(), told);
    }

    /// Shows what was lost and starts again.
    pub(crate) fn losses(&mut self, pool: &PoolView) {
        for replica in &pool.replicas {
            if let Some(step) = loss(pool, replica) {
                self.step(&step);
            }
        }
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

/// Why a pool cannot run: only when none of its replicas starts again by itself.
pub(crate) fn hopeless(pool: &PoolView) -> Option<String> {
    let failed = |replica: &ReplicaView| replica.phase == Phase::Failed;
    if pool.replicas.is_empty() || !pool.replicas.iter().all(failed) {
        return None;
    }
    let why = pool.replicas.iter().find_map(|replica| replica.last_error.as_ref());
    Some(why.map_or_else(|| "its configuration must change".to_owned(), reason))
}

/// The reason of a failure, what to do, and the engine's last words.
pub(crate) fn reason(error: &ReplicaError) -> String {
    let remedy = error.remedy.as_deref().unwrap_or("change the configuration and start again");
    let tail: String = error.log_tail.iter().map(|line| format!("\n  | {line}")).collect();
    format!("{}\n  what to do: {remedy}{tail}", error.message)
}

fn loss(pool: &PoolView, replica: &ReplicaView) -> Option<PreparationStep> {
    if !matches!(replica.phase, Phase::Backoff | Phase::BreakerOpen) {
        return None;
    }
    let why = replica.last_error.as_ref().map_or("the engine was lost", |error| error.message.as_str());
    let soon = Duration::from_millis(replica.next_attempt_ms.unwrap_or(0));
    Some(PreparationStep {
        // Every loss is news, also one that reads as the last did.
        id: format!("{}/loss-{}-{}", pool.id, replica.id, replica.failures),
        kind: StepKind::PoolWarmup,
        description: format!("lost: {why}; starting again in {}", human(soon)),
        status: StepStatus::Running,
        bytes_done: None,
        bytes_total: None,
        estimated_ms: None,
    })
}

fn line(step: &PreparationStep) -> String {
    let mark = if step.status == StepStatus::Completed { "✓" } else { "…" };
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

    /// ORCHD-ADMIT-007
    #[test]
    fn only_a_pool_whose_every_replica_failed_is_hopeless() {
        let replica = |id: &str| {
            serde_json::json!({
                "id": id, "phase": "failed", "phase_ms": 0, "slots_total": 0, "generation": 1,
                "failures": 1, "next_attempt_ms": 4000, "last_error": {
                    "cause": "exit", "message": "it exited with code 1", "remedy": "mend it", "log_tail": ["oh"]
                },
            })
        };
        let mut pool: PoolView = serde_json::from_value(serde_json::json!({
            "id": "p", "aliases": [], "model_ref": "builtin:haiku", "steps": [],
            "replicas": [replica("r0"), replica("r1")],
        }))
        .unwrap();
        let why = hopeless(&pool).unwrap();
        assert_eq!(why, "it exited with code 1\n  what to do: mend it\n  | oh");
        assert!(loss(&pool, &pool.replicas[0]).is_none(), "what failed does not start again");
        pool.replicas[1].phase = Phase::Backoff;
        assert_eq!(hopeless(&pool), None);
        let step = loss(&pool, &pool.replicas[1]).unwrap();
        assert_eq!(line(&step), "… p: lost: it exited with code 1; starting again in 4 s");
        pool.replicas.clear();
        assert_eq!(hopeless(&pool), None, "nothing is known yet");
    }

    fn running(description: &str) -> PreparationStep {
        PreparationStep {
            id: "haiku/engine".to_owned(),
            kind: wire::StepKind::EngineProvision,
            description: description.to_owned(),
            status: StepStatus::Running,
            bytes_done: None,
            bytes_total: None,
            estimated_ms: Some(200_000),
        }
    }

    /// EPROV-030: the installation of the build tools takes seconds, and is named nevertheless.
    #[test]
    fn another_activity_is_said_at_once_and_numbers_that_move_now_and_then() {
        let at = Instant::now();
        let description = "fetching llama-cpp-python 0.3.36 with pip".to_owned();
        let told = Told { status: StepStatus::Running, description, at };
        assert!(told.is_news(&running("installing CMake 4.4.4 and Ninja 1.13.2 into the cache"), at, false));
        let told = Told { description: "building llama-server: 3 % (7 of 206)".to_owned(), ..told };
        let more = running("building llama-server: 12 % (26 of 206)");
        assert!(!told.is_news(&more, at + LINE_EVERY / 2, false));
        assert!(told.is_news(&more, at + LINE_EVERY, false) && told.is_news(&more, at, true));
        let same = running("building llama-server: 3 % (7 of 206)");
        assert!(!told.is_news(&same, at + LINE_EVERY, false), "it says nothing new");
        assert!(told.is_news(&PreparationStep { status: StepStatus::Completed, ..same }, at, false));
    }

    #[test]
    fn a_running_step_says_how_long_it_takes() {
        let step = running("building llama-server: 43 %");
        assert_eq!(line(&step), "… haiku: building llama-server: 43 %, about 4 min left");
    }
}
