//! One task owns one replica. Its life is control flow: prepare → launch → probe → publish → watch
//! → withdraw → pause → again; where the code stands is the state.

mod candidate;
mod draining;
mod exchange;
mod launching;
mod losing;
mod preparing;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::SemaphorePermit;
use tokio::time::Instant;
use wire::config::OnExit;
use wire::pool::ReplicaError;
use wire::{Phase, PreparedEngine, ReplicaKey, StepStatus};

use crate::admission::{Claim, Ticket};
use crate::board::Seat;
use crate::classify::Cause;
use crate::launch::Life;
use crate::loss::Fault;
use crate::orders::{Orders, Turn};
use crate::pause::{Pause, first_line};
use crate::record::pool_digest;
use crate::schedule::RestartSchedule;
use crate::serving::Serving;
use crate::shared::Shared;
use crate::target::Target;

pub(crate) use launching::with_causes;

use candidate::{Candidate, Outcome};
use draining::{Drained, Why};
use exchange::{Fallback, Retiring};

/// One replica and its task's state.
pub(crate) struct Replica {
    shared: Arc<Shared>,
    target: Arc<Target>,
    key: ReplicaKey,
    seat: Seat,
    orders: Orders,
    schedule: RestartSchedule,
    prepared: Option<PreparedEngine>,
    ports_taken: u32,
    /// Preparations in a row that failed and may succeed later.
    unprepared: u32,
    /// The model was gone, and everything was prepared anew because of that.
    prepared_anew: bool,
    /// The number of a target that did not serve.
    refused: Option<u64>,
    fallback: Option<Fallback>,
    retiring: Option<Retiring>,
    /// Its place in the line of those that wait for memory.
    ticket: Option<Ticket>,
    /// The memory of an engine that is gone, for the next one.
    kept: Option<Claim>,
}

/// What follows an attempt.
enum After {
    /// Stopped on request, or shut down.
    Stopped,
    /// Start again now.
    Again,
    /// Start again when this is over.
    Pause(Pause),
    /// Wait for somebody to change something and ask anew.
    Failed(Box<ReplicaError>),
}

impl Replica {
    pub(crate) fn new(
        shared: Arc<Shared>,
        target: Arc<Target>,
        key: ReplicaKey,
        seat: Seat,
        orders: Orders,
    ) -> Self {
        let schedule = RestartSchedule::new(shared.timings.restart.clone());
        Self {
            shared,
            target,
            key,
            seat,
            orders,
            schedule,
            prepared: None,
            ports_taken: 0,
            unprepared: 0,
            prepared_anew: false,
            refused: None,
            fallback: None,
            retiring: None,
            ticket: None,
            kept: None,
        }
    }

    /// Runs until shutdown. `survivor` is an engine that outlived an earlier manager.
    pub(crate) async fn supervise(mut self, mut survivor: Option<Life>) {
        while self.orders.wanted().await {
            self.heed();
            match self.attempt(&mut survivor).await {
                After::Stopped => self.stopped().await,
                // A stop may have come after the last look at the orders.
                After::Again => self.rest_if_unwanted().await,
                After::Pause(pause) => self.pause(pause).await,
                After::Failed(error) => self.failed(*error).await,
            }
        }
        if let Some(life) = survivor {
            // The manager ends before it came to it.
            self.leave(&life).await;
        }
        self.stopped().await;
    }

    /// Shows that the last request is followed, at once with the phase that shows it.
    fn heed(&mut self) {
        self.take_target();
        if self.orders.take_reset() {
            self.schedule.reset();
            self.shared.metrics.breaker(&self.key, false);
            self.seat.update(|r| r.failures = 0);
        }
        let (request, prepared) = (self.orders.request(), self.prepared.is_some());
        let target = self.target.number;
        self.seat.update(|r| {
            r.target = target;
            r.request = request;
            r.cut_off = 0;
            r.phase(if prepared { Phase::Starting } else { Phase::Provisioning });
        });
    }

    async fn stopped(&mut self) {
        self.let_go();
        self.retired().await;
        self.fallback = None;
        self.schedule.reset();
        self.unprepared = 0;
        self.seat.stopped();
        self.seat.update(|r| {
            r.phase(Phase::Stopped);
            r.failures = 0;
        });
    }

    async fn pause(&mut self, pause: Pause) {
        let failures = self.schedule.losses();
        if let Some(words) = pause.words {
            self.seat.warmup(StepStatus::Running, words);
        }
        self.seat.update(|r| {
            r.phase(pause.phase);
            r.failures = failures;
            r.next_attempt = Some(Instant::now() + pause.length);
        });
        let over = tokio::time::sleep(pause.length);
        if pause.ends_when_asked {
            tokio::select! {
                () = over => {}
                () = self.orders.asked_anew() => {}
            }
        } else {
            tokio::select! {
                () = over => {}
                () = self.orders.reset() => {}
            }
        }
        self.rest_if_unwanted().await;
    }

    /// A stop that comes while nothing runs must be seen, too.
    async fn rest_if_unwanted(&mut self) {
        if !self.orders.are_to_run() {
            self.stopped().await;
        }
    }

    async fn failed(&mut self, error: ReplicaError) {
        // Whoever shows the board shows the whole message; the log needs it once and in one line.
        let why = first_line(&error.message).to_owned();
        tracing::warn!(replica = %self.key, cause = error.cause, "it cannot run: {why}");
        let memory = error.cause == Cause::InsufficientMemory.as_str();
        if !memory {
            self.let_go();
        }
        // What is configured or on disk will have changed when somebody asks again.
        self.prepared = None;
        self.prepared_anew = false;
        self.unprepared = 0;
        self.schedule.reset();
        self.seat.update(|r| {
            r.phase(Phase::Failed);
            r.last_error = Some(error);
        });
        self.seat.warmup_failed(&why);
        let mut orders = self.orders.clone();
        tokio::select! {
            () = orders.asked_anew() => {}
            () = self.has_room() => {}
        }
        self.rest_if_unwanted().await;
    }

    async fn attempt(&mut self, survivor: &mut Option<Life>) -> After {
        if let Some(life) = survivor.take_if(|life| life.record.pool_digest == pool_digest(&self.target.pool))
        {
            self.prepared = Some(life.record.prepared.clone());
            return self.live(life, None).await;
        }
        let prepared = match self.prepare().await {
            Ok(prepared) => prepared,
            Err(after) => {
                if !matches!(after, After::Again) {
                    self.let_go();
                }
                if !self.orders.shutting_down() {
                    self.discard(survivor.take()).await;
                }
                return after;
            }
        };
        match survivor.take() {
            Some(life) if life.record.prepared == prepared => return self.live(life, None).await,
            outdated => self.discard(outdated).await,
        }
        let shared = Arc::clone(&self.shared);
        let loading = tokio::select! {
            turn = shared.turn_to_load(&self.seat) => turn,
            () = self.orders.unwanted() => return After::Stopped,
        };
        let (placement, claim) = match self.admit(&prepared).await {
            Ok(admitted) => admitted,
            Err(after) => return after,
        };
        match self.launch(prepared, placement).await {
            Ok(mut life) => {
                claim.started(life.engine.pid());
                life.claim = Some(claim);
                self.live(life, loading).await
            }
            Err(after) => after,
        }
    }

    /// One life, from a started (or adopted) process to its end; with exchanges, one after the other.
    async fn live(&mut self, mut life: Life, mut loading: Option<SemaphorePermit<'_>>) -> After {
        if life.claim.is_none() {
            let (mask, pid) = (life.record.device_mask.as_deref(), life.engine.pid());
            life.claim = Some(self.shared.ledger.adopted(&life.record.prepared, mask, pid));
        }
        let mut serving = self.serving();
        let mut candidate: Option<Candidate> = None;
        let fault = loop {
            let ready = serving.is_ready();
            let mut orders = self.orders.clone();
            let event = tokio::select! {
                fault = serving.run(&mut life, loading.take()) => Event::Lost(fault),
                turn = self.orders.turned() => Event::Turn(turn),
                outcome = outcome_of(&mut candidate) => Event::Candidate(outcome),
                () = async { ready.cancelled().await; orders.another_target().await } => Event::Target,
            };
            serving.settled().await;
            if !matches!(event, Event::Candidate(_))
                && let Some(given_up) = candidate.take()
                && let Some((target, new)) = given_up.give_up().await
            {
                // It was quicker. What was to happen is looked at again, for the new engine.
                self.took_over(&mut life, &mut serving, target, new).await;
                continue;
            }
            match event {
                Event::Lost(fault) => break fault,
                Event::Target => candidate = self.candidate(&life),
                Event::Candidate(outcome) => {
                    let Some(target) = candidate.take().map(|candidate| candidate.target) else { continue };
                    match outcome {
                        Outcome::TookOver(new) => {
                            self.took_over(&mut life, &mut serving, target, *new).await;
                        }
                        Outcome::Refused(error) => self.refuse(target.number, *error),
                        Outcome::NeedsItsPlace(prepared, model) => {
                            let until = Instant::now() + target.patience;
                            match self.drain(&mut life, &mut serving, until, Why::Exchange).await {
                                Drained::CalledOff => {}
                                Drained::Lost(fault) => break fault,
                                Drained::Over { .. } => {
                                    self.finish(&life, self.shared.timings.stop_grace).await;
                                    self.seat.set_model(model.map(|model| *model));
                                    self.keep(&mut life, &After::Again);
                                    return self.exchange_apart(target, &life, *prepared);
                                }
                            }
                        }
                        Outcome::GivenUp => {}
                    }
                }
                Event::Turn(Turn::Leave) => return self.leave(&life).await,
                Event::Turn(Turn::Drain(until)) if serving.served().is_some() => {
                    match self.drain(&mut life, &mut serving, until, Why::Asked).await {
                        Drained::CalledOff => {}
                        Drained::Lost(fault) => return self.lost_while_draining(&life, &fault).await,
                        Drained::Over { .. } if self.orders.shutting_down() => {
                            return self.leave(&life).await;
                        }
                        Drained::Over { cut_off } => return self.end(&life, cut_off).await,
                    }
                }
                Event::Turn(Turn::Drain(_) | Turn::Stop) => return self.end(&life, 0).await,
            }
        };
        if let Some(claim) = &life.claim {
            claim.lost();
        }
        serving.settled().await;
        // Whatever is wrong with it, it will not end by itself politely, and nobody waits for it.
        self.finish(&life, Duration::ZERO).await;
        let after = self.lost(&life, fault, serving.served()).await;
        self.keep(&mut life, &after);
        after
    }

    fn serving(&self) -> Serving {
        let (shared, pool) = (Arc::clone(&self.shared), Arc::clone(&self.target.pool));
        Serving::new(shared, self.seat.clone(), self.key.clone(), pool)
    }

    /// The new engine is the replica's; the old one finishes what it has.
    async fn took_over(&mut self, life: &mut Life, serving: &mut Serving, target: Arc<Target>, new: Life) {
        self.target = target;
        let mut old = std::mem::replace(life, new);
        old.log.yielded_to(&life.log);
        *serving = self.serving();
        serving.took_over(life);
        self.prepared = Some(life.record.prepared.clone());
        self.show_target();
        let target = Arc::clone(&self.target);
        self.retire(old, &target).await;
    }

    /// Ends it as was asked.
    async fn end(&mut self, life: &Life, cut_off: u32) -> After {
        self.finish(life, self.shared.timings.stop_grace).await;
        self.seat.warmup(StepStatus::Pending, "stopped");
        self.seat.update(|r| r.cut_off = cut_off);
        After::Stopped
    }

    /// Ends it because the manager does, or leaves it for the next one.
    async fn leave(&mut self, life: &Life) -> After {
        if self.seat.config().on_exit == OnExit::Keep && life.record.handoff.is_some() {
            tracing::info!(replica = %self.key, pid = life.engine.pid(), "the engine is left running");
            return After::Stopped;
        }
        self.end(life, 0).await
    }

    /// It was about to end anyway, and is not started again; why it ended is shown.
    async fn lost_while_draining(&mut self, life: &Life, fault: &Fault) -> After {
        self.finish(life, Duration::ZERO).await;
        let loss = losing::explain(&self.shared, life, fault, true).await;
        self.tally(loss.cause);
        tracing::warn!(replica = %self.key, cause = loss.cause.as_str(), "lost while draining: {}", first_line(&loss.message));
        self.seat.update(|r| r.last_error = Some(loss.into_wire()));
        self.seat.warmup(StepStatus::Pending, "stopped");
        After::Stopped
    }
}

/// What happens to an engine that runs.
enum Event {
    Lost(Fault),
    Turn(Turn),
    /// It is to run something else.
    Target,
    Candidate(Outcome),
}

async fn outcome_of(candidate: &mut Option<Candidate>) -> Outcome {
    match candidate {
        Some(candidate) => candidate.outcome().await,
        None => std::future::pending().await,
    }
}
