//! Telling those who wait how far it is: preparation steps, at most four a second each.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use wire::{ModelRecord, PoolId, PreparationStep, StepKind, StepStatus};

/// Receives what happens while an engine is prepared. Called from the thread that prepares; must
/// not block for long.
pub trait Observer {
    /// A step moved. The same `id` is reported again and again until it is completed or failed.
    fn step(&self, step: &PreparationStep);

    /// Something a person should know that is not an error, as "no NVIDIA card: building for the CPU".
    fn notice(&self, pool: &PoolId, text: &str) {
        tracing::warn!(%pool, "{text}");
    }

    /// The pool's model is on this machine.
    fn model_staged(&self, pool: &PoolId, model: &ModelRecord) {
        tracing::debug!(%pool, model = %model.id, "model staged");
    }
}

/// Updates of one step that differ only in numbers are held back for this long.
const INTERVAL: Duration = Duration::from_millis(250);

/// One step of one pool.
pub(crate) struct Step<'a> {
    observer: &'a dyn Observer,
    state: RefCell<State>,
}

struct State {
    step: PreparationStep,
    sent: Option<Instant>,
    work_began: Option<Instant>,
}

impl<'a> Step<'a> {
    pub(crate) fn new(observer: &'a dyn Observer, pool: &PoolId, kind: StepKind) -> Self {
        let name = match kind {
            StepKind::EngineProvision => "engine",
            StepKind::ModelFetch => "model",
            StepKind::PoolWarmup => "warmup",
        };
        let step = PreparationStep {
            id: format!("{pool}/{name}"),
            kind,
            description: String::new(),
            status: StepStatus::Pending,
            bytes_done: None,
            bytes_total: None,
            estimated_ms: None,
        };
        Self { observer, state: RefCell::new(State { step, sent: None, work_began: None }) }
    }

    /// A new thing goes on; always sent.
    pub(crate) fn doing(&self, description: impl Into<String>) {
        self.send(description.into(), StepStatus::Running, None);
        self.state.borrow_mut().work_began = None;
    }

    /// How far the current thing is; sent when the last update is old enough or the work is done.
    pub(crate) fn progress(&self, description: impl FnOnce() -> String, done: u64, total: u64) {
        let now = Instant::now();
        let began = *self.state.borrow_mut().work_began.get_or_insert(now);
        let recent = self.state.borrow().sent.is_some_and(|sent| now.duration_since(sent) < INTERVAL);
        if recent && done < total {
            return;
        }
        let elapsed = u64::try_from(now.duration_since(began).as_millis()).unwrap_or(u64::MAX);
        // An estimate from the first few steps would be noise.
        let estimate = (done >= 3 && done <= total).then(|| elapsed.saturating_mul(total - done) / done);
        self.send(description(), StepStatus::Running, Some((done, total, estimate)));
    }

    pub(crate) fn completed(&self, description: impl Into<String>) {
        self.send(description.into(), StepStatus::Completed, None);
    }

    pub(crate) fn failed(&self, description: impl Into<String>) {
        self.send(description.into(), StepStatus::Failed, None);
    }

    fn send(&self, description: String, status: StepStatus, numbers: Option<(u64, u64, Option<u64>)>) {
        let mut state = self.state.borrow_mut();
        state.step.description = description;
        state.step.status = status;
        state.step.bytes_done = numbers.map(|(done, _, _)| done);
        state.step.bytes_total = numbers.map(|(_, total, _)| total);
        state.step.estimated_ms = numbers.and_then(|(_, _, estimate)| estimate);
        state.sent = Some(Instant::now());
        self.observer.step(&state.step);
    }
}
