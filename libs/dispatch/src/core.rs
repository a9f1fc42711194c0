//! A task's one state: waiting, on an engine, or ended. Every change goes through its lock, and
//! ending consumes the log's writer, so a task ends exactly once and nothing follows its end.

mod live;
mod loss;
mod receipt;
mod view;

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use adapter_host::{CompletionRequest, EngineRequest, Prompt, Sampling, SoFar};
use task_log::{LogWriter, TaskLog};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wire::event::Started;
use wire::task::{OnInterrupt, TaskView};
use wire::{EngineChunk, ReplicaKey, SessionId, TaskId, TaskState, TraceContext, Transcript};

use self::live::State;
pub(crate) use self::live::{Account, AfterLoss, DRAINED, LastWord, Refused, Run};
use crate::durable::Recorded;
use crate::ending::{Ending, Failure, millis};
use crate::estimate::Asked;
use crate::foresight::Predicted;
use crate::metrics::ClassMetrics;
use crate::place::Wish;
use crate::pool::Pool;
use crate::queue::Place;
use crate::quota::Permit;
use crate::size::Size;
use crate::spans::Spans;
use crate::traced::Traced;
use crate::{CallerId, Detach, Home, Limits, Owner};

/// What never changes about a task, and its state. In the order in which it stands here: see [`live::Live`].
#[derive(Debug)]
#[repr(C)]
pub(crate) struct TaskCore {
    state: Mutex<State>,
    pub(crate) deadline: Option<Instant>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) place: Place,
    pub(crate) admitted: Instant,
    pub(crate) log: TaskLog,
    pub(crate) id: TaskId,
    pub(crate) owner: Owner,
    pub(crate) caller: CallerId,
    pub(crate) fingerprint: [u8; 32],
    pub(crate) session: Option<SessionId>,
    pub(crate) wish: Wish,
    pub(crate) detach: Detach,
    pub(crate) asked: Asked,
    /// What it was expected to be when it came; what its caller is charged.
    pub(crate) size: Size,
    /// When it was expected to start.
    pub(crate) predicted: OnceLock<Predicted>,
    /// Cancelled when the task has ended, whoever ended it.
    pub(crate) ended: CancellationToken,
    /// Whether it is in the journal; until that is settled nobody may know of it.
    pub(crate) recorded: watch::Sender<Recorded>,
    on_interrupt: OnInterrupt,
    /// Whether what was asked and answered is kept.
    pub(crate) transcript: bool,
    /// Its part of a trace, where it is in one.
    pub(crate) traced: Option<Traced>,
    /// It counts among its caller's tasks until it has ended.
    permit: Mutex<Option<Permit>>,
    /// The life of the replica it was placed on last.
    placed: Mutex<Option<(ReplicaKey, u64)>>,
}

/// What a task is made of; see [`TaskCore`].
pub(crate) struct NewTask {
    pub(crate) id: TaskId,
    pub(crate) owner: Owner,
    pub(crate) caller: CallerId,
    pub(crate) fingerprint: [u8; 32],
    pub(crate) session: Option<SessionId>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) place: Place,
    pub(crate) wish: Wish,
    pub(crate) detach: Detach,
    pub(crate) admitted: Instant,
    pub(crate) deadline: Option<Duration>,
    pub(crate) asked: Asked,
    pub(crate) size: Size,
    pub(crate) request: EngineRequest,
    pub(crate) recorded: Recorded,
    pub(crate) on_interrupt: OnInterrupt,
    pub(crate) transcript: bool,
    pub(crate) trace: Option<TraceContext>,
    pub(crate) spans: Option<Spans>,
}

/// What to ask the engine, and where in a trace that is.
pub(crate) type Begun = (EngineRequest, Option<TraceContext>);

impl TaskCore {
    pub(crate) fn new(mut task: NewTask, (log, writer): (TaskLog, LogWriter), limits: &Limits) -> Self {
        let request = std::mem::replace(&mut task.request, nothing());
        let state = State::live(writer, request, task.fingerprint, limits);
        Self::with(task, log, state)
    }

    /// A task that had ended before this process began.
    pub(crate) fn past(task: NewTask, log: TaskLog, view: TaskView) -> Self {
        let core = Self::with(task, log, State::Past(Box::new(view)));
        core.ended.cancel();
        core
    }

    fn with(task: NewTask, log: TaskLog, state: State) -> Self {
        let admitted = task.admitted;
        Self {
            id: task.id,
            owner: task.owner,
            caller: task.caller,
            fingerprint: task.fingerprint,
            session: task.session,
            pool: task.pool,
            place: task.place,
            wish: task.wish,
            detach: task.detach,
            admitted,
            // A deadline beyond the clock's range is none.
            deadline: task.deadline.and_then(|life| Instant::now().checked_add(life)),
            asked: task.asked,
            size: task.size,
            predicted: OnceLock::new(),
            log,
            ended: CancellationToken::new(),
            recorded: watch::Sender::new(task.recorded),
            on_interrupt: task.on_interrupt,
            transcript: task.transcript,
            traced: task.trace.map(|trace| Traced::new(&trace, task.spans, admitted)),
            state: Mutex::new(state),
            permit: Mutex::default(),
            placed: Mutex::default(),
        }
    }

    /// A task that got no place: nobody knows of it, and nothing is said in its log.
    pub(crate) fn discard(&self) {
        let ended = State::Ended { state: TaskState::Interrupted, history: Box::default() };
        if let State::Live(live) = std::mem::replace(&mut *self.lock(), ended) {
            live.writer.discard();
        }
    }

    /// Its record is on disk, or cannot be.
    pub(crate) fn settle(&self, recorded: Recorded) {
        self.recorded.send_replace(recorded);
    }

    /// The same of a task whose log has not ended, at once for whoever ends it; `false`, and nothing done, of
    /// one whose has.
    pub(crate) fn settle_alive(&self, recorded: Recorded) -> bool {
        let state = self.lock();
        let alive = matches!(&*state, State::Live(_) | State::Ending(_));
        if alive {
            self.settle(recorded);
        }
        alive
    }

    /// Whether the journal keeps it.
    pub(crate) fn is_durable(&self) -> bool {
        *self.recorded.borrow() != Recorded::NotNeeded
    }

    /// Whether it may wait for the next process: it is in the journal and no engine has it.
    pub(crate) fn may_stay(&self) -> bool {
        let waits = matches!(&*self.lock(), State::Live(live) if !live.running);
        waits && *self.recorded.borrow() == Recorded::Yes
    }

    /// Lets go of a task that the next process takes up from the journal, and says whether it is one.
    /// `kept`: whether the journal holds what was said.
    pub(crate) fn put_off(&self, kept: bool) -> bool {
        let mut state = self.lock();
        let State::Live(live) = &*state else { return false };
        let stays = (kept || !live.running) && live.outlives_us(self.on_interrupt);
        if !stays || *self.recorded.borrow() != Recorded::Yes {
            return false;
        }
        let ended = State::Ended { state: TaskState::Queued, history: Box::default() };
        if let State::Live(live) = std::mem::replace(&mut *state, ended) {
            if let Some(traced) = &self.traced {
                traced.waits_again(live.first_chunk, Some("orchestratord went down".to_owned()));
            }
            live.writer.put_off(Failure::put_off().event());
        }
        drop(state);
        self.holds(None);
        self.ended.cancel();
        true
    }

    /// Holds its place among its caller's tasks until it has ended.
    pub(crate) fn holds(&self, permit: Option<Permit>) {
        *self.permit.lock().unwrap_or_else(PoisonError::into_inner) = permit;
    }

    /// It was given a slot there.
    pub(crate) fn placed_on(&self, key: &ReplicaKey, generation: u64) {
        *self.placed.lock().unwrap_or_else(PoisonError::into_inner) = Some((key.clone(), generation));
    }

    /// The slot that it was given last.
    pub(crate) fn placed(&self) -> Option<(ReplicaKey, u64)> {
        self.placed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where its prompt and its answer lie, if its engine keeps them.
    pub(crate) fn home(&self, used: Size) -> Option<Home> {
        let (key, generation) = self.placed().filter(|_| self.asked.cached)?;
        Some(Home { key, generation, tokens: used.tokens_in.saturating_add(used.tokens_out) })
    }

    pub(crate) fn metrics(&self) -> &ClassMetrics {
        self.pool.metrics.class(self.place.priority)
    }

    /// The task has a slot: says so in its log and hands out what to ask the engine and the trace to
    /// name. `None` when it has ended meanwhile; a failure when this engine cannot go on with what was
    /// said.
    pub(crate) fn begin(&self, run: Run) -> Option<Result<Begun, Failure>> {
        let mut state = self.lock();
        let State::Live(live) = &mut *state else { return None };
        if let Some(failure) = live.of_another_model(&run) {
            return Some(Err(failure));
        }
        live.last_chunk = None;
        if let Some(reason) = live.lost.take() {
            live.go_on(reason, &run);
        } else {
            let queue = run.since.saturating_duration_since(self.admitted);
            live.writer.started(Started {
                queue_ms: millis(queue),
                pool_id: run.key.pool.clone(),
                replica_id: run.key.replica.clone(),
                engine_version: run.engine_version.to_string(),
                model: run.model_id.to_string(),
                model_digest: run.model_digest.to_string(),
            });
            live.history.queue = Some(queue);
            self.count_start(queue, run.since);
        }
        live.model_digest = Arc::clone(&run.model_digest);
        let trace = self.traced.as_ref().map(|traced| traced.begins(&run));
        live.runs(run);
        Some(Ok((live.ask(), trace)))
    }

    fn count_start(&self, queue: Duration, now: Instant) {
        self.pool.first_start(now);
        self.metrics().started.inc();
        self.metrics().queue_wait.observe(queue.as_secs_f64());
        if let Some(predicted) = self.predicted.get() {
            self.metrics().eta_error.observe(predicted.told.abs_diff(queue).as_secs_f64());
            self.pool.lock_estimator().started(&self.caller, self.place.priority, predicted.queue, queue);
        }
    }

    /// Appends what the engine sent. The task's own lock is the only one on this path.
    pub(crate) fn append(&self, chunk: EngineChunk, now: Instant) -> Result<(), Refused> {
        let mut state = self.lock();
        let State::Live(live) = &mut *state else { return Err(Refused::Ended) };
        live.said.see(&chunk);
        let decode_ms = live.notes_decode(now);
        live.writer.chunk_by(chunk, decode_ms).map_err(Refused::Full)?;
        if !live.said.spoken {
            return Ok(());
        }
        match live.last_chunk.replace(now) {
            Some(before) => self.metrics().inter_token.observe((now - before).as_secs_f64()),
            // The first after a seam is neither a first token nor one that followed another.
            None if live.resumed.1 > 0 => {}
            None => {
                live.first_chunk = Some(now);
                self.metrics().first_token.observe((now - self.admitted).as_secs_f64());
            }
        }
        Ok(())
    }

    /// Whether its reader has anything of it.
    pub(crate) fn has_spoken(&self) -> bool {
        matches!(&*self.lock(), State::Live(live) if live.said.spoken)
    }

    /// When the engine that runs it now last sent something; `None` before its first token.
    pub(crate) fn last_chunk(&self) -> Option<Instant> {
        match &*self.lock() {
            State::Live(live) => live.last_chunk,
            State::Ending(_) | State::Ended { .. } | State::Past(_) => None,
        }
    }

    /// What was asked and answered, of a task that asked for it to be kept and finishes now.
    pub(crate) fn transcript(&self, ending: &Ending) -> Option<Transcript> {
        match &*self.lock() {
            State::Live(live) if self.transcript => live.transcript(&self.id, &self.pool.id, ending),
            State::Live(_) | State::Ending(_) | State::Ended { .. } | State::Past(_) => None,
        }
    }

    /// The artifact of its transcript, for its receipt.
    pub(crate) fn keeps(&self, artifact: String) {
        if let State::Live(live) = &mut *self.lock() {
            live.transcript = Some(artifact);
        }
    }

    /// Ends it, if it has not ended: nothing is appended from now on but the last word, which is for
    /// [`TaskCore::announce`]. Says what the task cost, to be counted before that.
    pub(crate) fn end(&self, ending: &Ending) -> Option<(Account, LastWord)> {
        let mut state = self.lock();
        let ended = State::Ending(Box::default());
        let live = match std::mem::replace(&mut *state, ended) {
            State::Live(live) => *live,
            before @ (State::Ending(_) | State::Ended { .. } | State::Past(_)) => {
                *state = before;
                return None;
            }
        };
        let (account, past, last) = live.close(ending);
        *state = State::Ending(Box::new(past));
        drop(state);
        self.holds(None);
        Some((account, last))
    }

    /// Says the last word: whoever reads it finds everything counted that the task was.
    pub(crate) fn announce(&self, last: LastWord) {
        let mut state = self.lock();
        if let State::Ending(history) = &mut *state {
            let history = std::mem::take(history);
            *state = State::Ended { state: last.state, history };
        }
        last.say();
        drop(state);
        self.ended.cancel();
    }

    pub(crate) fn has_ended(&self) -> bool {
        !matches!(&*self.lock(), State::Live(_))
    }

    // A poisoned lock is taken as it is: whoever panicked held a complete state.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// In the place of a request that is not needed any more.
pub(crate) fn nothing() -> EngineRequest {
    EngineRequest::Completion(CompletionRequest {
        prompt: Prompt::Text(String::new()),
        sampling: Sampling::default(),
        cache_prompt: false,
        so_far: SoFar::Nothing,
    })
}
