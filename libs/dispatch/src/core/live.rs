//! A task while it lives: its request, what it has said, and what becomes of it when its engine is lost.
//! Knows no lock: [`TaskCore`](super::TaskCore) holds one around it.

use std::sync::Arc;
use std::time::Duration;

use adapter_host::{EngineRequest, SoFar};
use sha2::{Digest, Sha256};
use task_log::{Full, LogWriter};
use tokio::time::Instant;
use wire::event::{End, FinishReason, Resumed, Seam, StreamError};
use wire::task::{OnInterrupt, TaskView};
use wire::{EngineFacts, ReplicaId, ReplicaKey, Seed, TaskState};

use crate::Limits;
use crate::ending::{Ending, Failure, Used, millis};
use crate::said::Said;

/// Why a task waits again whose replica was drained.
pub(crate) const DRAINED: &str = "its replica was drained";

/// A task that has spoken waits for so many loads of its engine, where that is longer than the limit: one
/// that fails, and is tried again behind a pause.
const LOADS_WAITED_FOR: u32 = 3;

/// The time that a task has spent on engines stands in its log so often, for a process that goes on with it.
const NOTED_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) enum State {
    Live(Box<Live>),
    /// It has ended, and its log does not say so yet: what it was is still being counted.
    Ending(Box<History>),
    Ended {
        state: TaskState,
        history: Box<History>,
    },
    /// It had ended before this process began; what was shown of it then.
    Past(Box<TaskView>),
}

/// In the order in which it stands here: what a token touches lies together, because with thousands of streams
/// none of it is in a cache when the next one comes.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Live {
    pub(super) writer: LogWriter,
    pub(super) said: Said,
    pub(super) last_chunk: Option<Instant>,
    notes: Notes,
    pub(super) first_chunk: Option<Instant>,
    pub(super) running: bool,
    pub(super) retries_left: u32,
    pub(super) resumes_left: u32,
    /// Until when it waits for an engine to go on with.
    pub(super) resume_by: Option<Instant>,
    /// What the engine that runs it now was given of what was said, and how many tokens that is.
    pub(super) resumed: (SoFar, u64),
    pub(super) history: History,
    pub(super) request: EngineRequest,
    /// Of the body that submitted it.
    pub(super) fingerprint: [u8; 32],
    /// The artifact that holds what was asked and answered.
    pub(super) transcript: Option<String>,
    pub(super) lost: Option<String>,
    /// Of the model that runs it or ran it last, also in an earlier process; empty when not known.
    pub(super) model_digest: Arc<str>,
}

/// When it is noted next what the task has spent on engines, and what that is counted from: copies of what
/// the history says of the stay that goes on, which no token has to look for there.
#[derive(Debug)]
struct Notes {
    at: Instant,
    since: Instant,
    before: Duration,
}

/// What is shown of a task's past.
#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) run: Option<Run>,
    pub(super) queue: Option<Duration>,
    pub(super) decode: Option<Duration>,
    /// Time on engines that were lost, also in earlier processes.
    pub(super) decode_before: Duration,
    pub(super) seams: Vec<Seam>,
    /// Of a task that has ended.
    pub(super) tokens_out: Option<u64>,
}

/// One stay of a task on an engine.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) key: ReplicaKey,
    pub(crate) engine_version: Arc<str>,
    pub(crate) engine: Arc<EngineFacts>,
    pub(crate) model_id: Arc<str>,
    pub(crate) model_digest: Arc<str>,
    pub(crate) determinism: Option<Arc<wire::Determinism>>,
    /// How long that engine took to load, where its handoff says.
    pub(crate) load: Option<Duration>,
    pub(crate) since: Instant,
    pub(crate) words: String,
}

/// Why a chunk was not appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The task has ended.
    Ended,
    /// Its log is full.
    Full(Full),
}

/// What becomes of a task whose engine was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AfterLoss {
    /// Its reader has seen nothing of it: it may run anew.
    Anew,
    /// It may go on with another engine.
    Again,
    /// It has begun to speak and cannot or may not go on elsewhere, or was tried often enough; why, where
    /// its owner can do something about it.
    GiveUp(Option<&'static str>),
    /// It has said all that it may: only the engine's end is missing.
    Spent,
    /// It has ended meanwhile.
    Ended,
}

/// What an ending cost.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    pub(crate) used: Used,
    /// Time on engines, all of them together; `None` for one that was on none.
    pub(crate) decode: Option<Duration>,
    /// The part of it on the engine that it ended on; `None` for one that ended on none.
    pub(crate) stay: Option<Duration>,
    /// Whether it was on an engine in this process.
    pub(crate) had_slot: bool,
    /// The part of its stay before the first token; `None` for one that spoke before this stay.
    pub(crate) to_first: Option<Duration>,
    /// When that came, in this process.
    pub(crate) first_token: Option<Instant>,
    /// The name of the model that it ran on last, where its engine has one.
    pub(crate) model: Option<Arc<str>>,
}

impl Notes {
    fn of(since: Instant, before: Duration) -> Self {
        Self { at: since + NOTED_EVERY, since, before }
    }
}

impl State {
    pub(super) fn live(
        writer: LogWriter,
        request: EngineRequest,
        fingerprint: [u8; 32],
        limits: &Limits,
    ) -> Self {
        Self::Live(Box::new(Live {
            writer,
            request,
            fingerprint,
            transcript: None,
            running: false,
            lost: None,
            resume_by: None,
            retries_left: limits.retry.per_task,
            resumes_left: limits.resumes,
            said: Said::default(),
            resumed: (SoFar::Nothing, 0),
            first_chunk: None,
            last_chunk: None,
            notes: Notes::of(Instant::now(), Duration::ZERO),
            model_digest: Arc::default(),
            history: History::default(),
        }))
    }
}

/// The terminal entry of a log, not yet written.
#[derive(Debug)]
#[must_use = "a log whose last word is not said ends as one that was cut off"]
pub(crate) struct LastWord {
    writer: LogWriter,
    last: Result<End, StreamError>,
    pub(super) state: TaskState,
}

impl LastWord {
    pub(super) fn say(self) {
        match self.last {
            Ok(end) => self.writer.end(end),
            Err(error) => self.writer.error(error),
        }
    }
}

impl Live {
    /// What the task cost, what is shown of it from now on, and the terminal entry.
    pub(super) fn close(mut self, ending: &Ending) -> (Account, History, LastWord) {
        let mut past = std::mem::take(&mut self.history);
        let on_engine = past.run.as_ref().filter(|_| self.running).map(|run| run.since.elapsed());
        let before = Some(past.decode_before).filter(|before| !before.is_zero());
        past.decode = on_engine.map(|last| last + past.decode_before).or(before);
        let since = past.run.as_ref().map(|run| run.since);
        let to_first = match self.first_chunk {
            // It spoke before this stay, in another process.
            None if self.resumed.1 > 0 => None,
            None => on_engine,
            Some(first) => since.and_then(|since| first.checked_duration_since(since)),
        };
        let (used, first_token) = (self.used(ending), self.first_chunk);
        past.tokens_out = Some(used.tokens_out);
        let last = match ending {
            Ending::Finished(finished) => Ok(finished.reason),
            Ending::Spent => Ok(FinishReason::Length),
            Ending::Cancelled(_) => Ok(FinishReason::Cancelled),
            Ending::Failed(failure) => Err(failure.event()),
        };
        let last = last.map(|finish_reason| End {
            tokens_in: used.tokens_in,
            tokens_out: used.tokens_out,
            decode_time_ms: millis(past.decode.unwrap_or_default()),
            finish_reason,
            receipt: Box::new(self.receipt(&past, ending)),
            result: None,
        });
        let state = match ending {
            Ending::Finished(_) | Ending::Spent => TaskState::Done,
            Ending::Cancelled(_) => TaskState::Cancelled,
            Ending::Failed(failure) => failure.state(),
        };
        let last = LastWord { writer: self.writer, last, state };
        let model = past.run.as_ref().map(|run| Arc::clone(&run.model_id)).filter(|name| !name.is_empty());
        let (decode, stay, had_slot) = (past.decode, on_engine, past.run.is_some());
        (Account { used, decode, stay, had_slot, to_first, first_token, model }, past, last)
    }

    /// What was said is another model's: its token ids mean nothing to the one that runs now.
    pub(super) fn of_another_model(&self, run: &Run) -> Option<Failure> {
        let known = !self.model_digest.is_empty() && !run.model_digest.is_empty();
        if !self.said.spoken || !known || self.model_digest == run.model_digest {
            return None;
        }
        let reason = self.lost.as_deref().unwrap_or_default();
        let failure = match &self.history.run {
            Some(before) if reason == DRAINED => Failure::draining(&before.key),
            _ => Failure::engine_lost(reason),
        };
        Some(failure.because("the pool's model has changed: another model cannot go on with the answer"))
    }

    /// Announces that another engine goes on.
    pub(super) fn go_on(&mut self, reason: String, run: &Run) {
        let replica_id = run.key.replica.clone();
        self.resume_by = None;
        self.note_seam(self.writer.token_events(), &replica_id);
        let so_far = self.said.so_far();
        self.resumed = (so_far, self.said.count());
        // The writer knows the index.
        self.writer.resumed(Resumed { from_index: 0, reason, replica_id });
    }

    /// It is on an engine from now on.
    pub(super) fn runs(&mut self, run: Run) {
        self.notes = Notes::of(run.since, self.history.decode_before);
        self.history.run = Some(run);
        self.running = true;
    }

    /// What it has spent on engines by `now`, when that is to be noted again. `now` is read once for a chunk,
    /// and most chunks are compared with it and note nothing.
    pub(super) fn notes_decode(&mut self, now: Instant) -> Option<u64> {
        if now < self.notes.at {
            return None;
        }
        self.notes.at = now + NOTED_EVERY;
        Some(millis(self.notes.before + now.saturating_duration_since(self.notes.since)))
    }

    /// An earlier process announced that another engine went on. It counts among the times that a task
    /// may, and its receipt tells of it as of those of this process.
    pub(super) fn recall_seam(&mut self, resumed: &Resumed) {
        self.said.drop_held();
        if self.said.spoken {
            self.resumes_left = self.resumes_left.saturating_sub(1);
        }
        self.note_seam(resumed.from_index, &resumed.replica_id);
    }

    /// For the receipt: all but the place follows from the request and what was said before it.
    fn note_seam(&mut self, from_index: u64, replica: &ReplicaId) {
        let Some(by) = self.said.goes_on_by() else { return };
        let seed = continuing_seed(&self.request, self.said.count()).map(Seed);
        self.history.seams.push(Seam { from_index, by, replica_id: replica.clone(), seed });
    }

    /// What the engine is asked: all of it, or the rest of it.
    pub(super) fn ask(&self) -> EngineRequest {
        let mut request = self.request.clone();
        if let EngineRequest::Completion(completion) = &mut request
            && self.resumed.0 != SoFar::Nothing
        {
            completion.sampling.max_tokens = self.said.left(&self.request);
            completion.sampling.seed =
                continuing_seed(&self.request, self.resumed.1).or(completion.sampling.seed);
            completion.so_far = self.resumed.0.clone();
        }
        request
    }

    pub(super) fn after_loss(
        &mut self,
        reason: &str,
        on_interrupt: OnInterrupt,
        limits: &Limits,
    ) -> AfterLoss {
        if self.is_completion() {
            self.said.drop_held();
        }
        if !self.said.spoken {
            if self.retries_left == 0 {
                return AfterLoss::GiveUp(None);
            }
            self.retries_left -= 1;
            self.wait_again(reason);
            return AfterLoss::Anew;
        }
        if let Some(ends) = self.cannot_go_on(on_interrupt) {
            return ends;
        }
        if self.said.left(&self.request) == Some(0) {
            return AfterLoss::Spent;
        }
        if self.resumes_left == 0 {
            return AfterLoss::GiveUp(Some("it was taken over as often as a task may be"));
        }
        self.resumes_left -= 1;
        // The next life of its engine loads as long as this one did, and may take more than one try.
        let load = self.history.run.as_ref().and_then(|run| run.load).unwrap_or_default();
        let within = limits.resume_within.max(load.saturating_mul(LOADS_WAITED_FOR));
        self.resume_by = Instant::now().checked_add(within);
        self.wait_again(reason);
        AfterLoss::Again
    }

    /// What a completion ends with that may not go on in its middle; `None` if it may.
    pub(super) fn cannot_go_on(&self, on_interrupt: OnInterrupt) -> Option<AfterLoss> {
        let bound = "an answer bound to a grammar or a schema cannot go on in its middle";
        match on_interrupt {
            OnInterrupt::Fail => Some(AfterLoss::GiveUp(None)),
            OnInterrupt::Resume => self.is_bound().then_some(AfterLoss::GiveUp(Some(bound))),
        }
    }

    /// Whether a process after this one would go on with it, as [`Live::after_loss`] decides there.
    pub(super) fn outlives_us(&self, on_interrupt: OnInterrupt) -> bool {
        // What was held back is not in its reader's hands, and is said again.
        let spoken = if self.is_completion() { !self.said.text().is_empty() } else { self.said.spoken };
        let resumable = on_interrupt == OnInterrupt::Resume && !self.is_bound() && self.resumes_left > 0;
        !self.running || !spoken || resumable
    }

    pub(super) fn is_completion(&self) -> bool {
        matches!(self.request, EngineRequest::Completion(_))
    }

    /// Whether its answer is bound to a form that another engine cannot take up in its middle.
    fn is_bound(&self) -> bool {
        let EngineRequest::Completion(completion) = &self.request else { return true };
        completion.sampling.grammar.is_some() || completion.sampling.json_schema.is_some()
    }

    pub(super) fn wait_again(&mut self, reason: &str) {
        if let Some(run) = self.history.run.as_ref().filter(|_| self.running) {
            self.history.decode_before += run.since.elapsed();
        }
        self.running = false;
        self.lost = Some(reason.to_owned());
    }
}

/// The seed behind a seam, of a task that draws its tokens: the engine begins to draw anew, and the same
/// seed would draw the same numbers again. `None` where nothing is drawn or no seed was asked for.
fn continuing_seed(request: &EngineRequest, said: u64) -> Option<u32> {
    let EngineRequest::Completion(completion) = request else { return None };
    let (seed, temperature) = (completion.sampling.seed?, completion.sampling.temperature);
    if temperature == Some(0.0) {
        return None;
    }
    let mut digest = Sha256::new();
    digest.update(seed.to_le_bytes());
    digest.update(said.to_le_bytes());
    let bytes: [u8; 32] = digest.finalize().into();
    Some(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}
