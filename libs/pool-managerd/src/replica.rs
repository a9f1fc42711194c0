//! One task owns one replica. Its life is control flow: prepare → launch → probe → publish → watch
//! → withdraw → pause → again; where the code stands is the state.

use std::sync::Arc;
use std::time::Duration;

use handoff::HandoffDir;
use provisioners_engine_provisioner::Cancel;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wire::config::{OnExit, PoolConfig};
use wire::pool::ReplicaError;
use wire::{Phase, PreparationStep, PreparedEngine, ReplicaKey, StepStatus};

use crate::board::Seat;
use crate::classify::Cause;
use crate::launch::{InheritedEnv, Life, launch, random_key};
use crate::loss::{Fault, Loss};
use crate::metrics::Metrics;
use crate::orders::Orders;
use crate::pause::{Pause, first_line, one_line, soon};
use crate::prepare::Progress;
use crate::record::{RunDir, pool_digest};
use crate::schedule::{Next, RestartSchedule, nth};
use crate::serving::Serving;
use crate::{Prepare, PrepareError, Timings};

/// A port that was taken is tried again at once, so many times; then it counts as a loss.
const PORT_TRIES: u32 = 5;

/// What all replicas of this manager share.
pub(crate) struct Shared {
    pub(crate) run: RunDir,
    pub(crate) handoffs: HandoffDir,
    pub(crate) inherited: InheritedEnv,
    pub(crate) preparer: Arc<dyn Prepare>,
    /// One provisioning at a time: builds and downloads do not get faster side by side.
    pub(crate) provisioning: Mutex<()>,
    /// Engines that may load at once.
    pub(crate) loading: Semaphore,
    pub(crate) timings: Timings,
    pub(crate) metrics: Metrics,
    /// Told when nobody waits for an engine to end politely any more.
    pub(crate) hurry: CancellationToken,
}

/// One replica and its task's state.
pub(crate) struct Replica {
    shared: Arc<Shared>,
    pool: Arc<PoolConfig>,
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
}

/// What follows an attempt.
enum After {
    /// Stopped on request, or shut down.
    Stopped,
    /// Start again when this is over.
    Pause(Pause),
    /// Wait for somebody to change something and ask anew.
    Failed(Box<ReplicaError>),
}

impl Replica {
    pub(crate) fn new(
        shared: Arc<Shared>,
        pool: Arc<PoolConfig>,
        key: ReplicaKey,
        seat: Seat,
        orders: Orders,
    ) -> Self {
        let schedule = RestartSchedule::new(shared.timings.restart.clone());
        Self {
            shared,
            pool,
            key,
            seat,
            orders,
            schedule,
            prepared: None,
            ports_taken: 0,
            unprepared: 0,
            prepared_anew: false,
        }
    }

    /// Runs until shutdown. `survivor` is an engine that outlived an earlier manager.
    pub(crate) async fn supervise(mut self, mut survivor: Option<Life>) {
        while self.orders.wanted().await {
            match self.attempt(&mut survivor).await {
                After::Stopped => self.stopped(),
                After::Pause(pause) => self.pause(pause).await,
                After::Failed(error) => self.failed(*error).await,
            }
        }
        self.stopped();
    }

    fn stopped(&mut self) {
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
                () = self.orders.unwanted() => {}
            }
        }
        self.rest_if_unwanted();
    }

    /// A stop that comes while nothing runs must be seen, too.
    fn rest_if_unwanted(&mut self) {
        if !self.orders.are_to_run() {
            self.stopped();
        }
    }

    async fn failed(&mut self, error: ReplicaError) {
        // Whoever shows the board shows the whole message; the log needs it once and in one line.
        let why = first_line(&error.message).to_owned();
        tracing::warn!(replica = %self.key, cause = error.cause, "it cannot run: {why}");
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
        self.orders.asked_anew().await;
        self.rest_if_unwanted();
    }

    async fn attempt(&mut self, survivor: &mut Option<Life>) -> After {
        if let Some(life) = survivor.take_if(|life| life.record.pool_digest == pool_digest(&self.pool)) {
            self.prepared = Some(life.record.prepared.clone());
            return self.live(life, None).await;
        }
        let prepared = match self.prepare().await {
            Ok(prepared) => prepared,
            Err(after) => {
                self.discard(survivor.take()).await;
                return after;
            }
        };
        match survivor.take() {
            Some(life) if life.record.prepared == prepared => return self.live(life, None).await,
            outdated => self.discard(outdated).await,
        }
        let shared = Arc::clone(&self.shared);
        let loading = tokio::select! {
            permit = shared.loading.acquire() => permit.ok(),
            () = self.orders.unwanted() => return After::Stopped,
        };
        match self.launch(prepared).await {
            Ok(life) => self.live(life, loading).await,
            Err(after) => after,
        }
    }

    /// Ends an engine that is not the one that is wanted now.
    async fn discard(&mut self, life: Option<Life>) {
        if let Some(life) = life {
            tracing::info!(replica = %self.key, pid = life.engine.pid(), "the running engine is outdated and is stopped");
            self.finish(&life, self.shared.timings.stop_grace).await;
        }
    }

    async fn prepare(&mut self) -> Result<PreparedEngine, After> {
        if let Some(prepared) = &self.prepared {
            return Ok(prepared.clone());
        }
        self.seat.update(|r| r.phase(Phase::Provisioning));
        let shared = Arc::clone(&self.shared);
        let _turn = tokio::select! {
            turn = shared.provisioning.lock() => turn,
            () = self.orders.unwanted() => return Err(After::Stopped),
        };
        let cancel = Cancel::new();
        let mut work = tokio::task::spawn_blocking({
            let (shared, pool, cancel) = (Arc::clone(&self.shared), Arc::clone(&self.pool), cancel.clone());
            let (replica, progress) = (self.key.replica.clone(), self.progress());
            move || shared.preparer.prepare(&pool, &replica, &progress, &cancel)
        });
        let outcome = tokio::select! {
            outcome = &mut work => outcome,
            () = self.orders.unwanted() => {
                cancel.cancel();
                let _whatever_it_came_to = work.await;
                return Err(After::Stopped);
            }
        };
        let error = match outcome {
            Ok(Ok(prepared)) => {
                self.unprepared = 0;
                self.prepared = Some(prepared.clone());
                return Ok(prepared);
            }
            Ok(Err(error)) => error,
            Err(join) => PrepareError {
                message: format!("preparing the engine broke off: {join}"),
                remedy: None,
                may_heal: false,
            },
        };
        Err(self.not_prepared(error))
    }

    /// Its steps are settled while it is this replica's turn; the reason is there before they are.
    fn not_prepared(&mut self, error: PrepareError) -> After {
        let mut loss = Loss::plain(Cause::Provisioning, error.message);
        loss.remedy = error.remedy.or(loss.remedy);
        let error_on_board = loss.into_wire();
        self.seat.update(|r| r.last_error = Some(error_on_board.clone()));
        if !error.may_heal {
            self.seat.preparation(StepStatus::Failed, None);
            return After::Failed(Box::new(error_on_board));
        }
        let pause = nth(&self.shared.timings.provisioning_pauses, self.unprepared);
        self.unprepared = self.unprepared.saturating_add(1);
        let message = &error_on_board.message;
        tracing::warn!(
            replica = %self.key, cause = error_on_board.cause, "{}; trying again {}", first_line(message), soon(pause)
        );
        let words = format!("trying again {}: {}", soon(pause), one_line(message));
        self.seat.preparation(StepStatus::Running, Some(&words));
        After::Pause(Pause::for_preparation(pause))
    }

    fn progress(&self) -> Progress {
        let (steps, model) = (self.seat.clone(), self.seat.clone());
        Progress::new(move |step| steps.step(not_final(step)), move |record| model.set_model(Some(record)))
    }

    /// Never dropped half-way: a process that was started must not be forgotten.
    async fn launch(&mut self, prepared: PreparedEngine) -> Result<Life, After> {
        let outcome = tokio::task::spawn_blocking({
            let (shared, pool, model) = (Arc::clone(&self.shared), Arc::clone(&self.pool), self.seat.model());
            move || launch(&shared.run, &shared.inherited, &pool, &prepared, model)
        })
        .await;
        match outcome {
            Ok(Ok(life)) => Ok(life),
            Ok(Err(error)) if error.is_of_the_disk() => {
                // A full disk recovers by itself and says nothing about the engine: not counted.
                let error = Loss::plain(Cause::Launch, with_causes(&error)).into_wire();
                self.seat.update(|r| r.last_error = Some(error));
                Err(After::Pause(Pause::for_disk(self.shared.timings.disk_retry)))
            }
            Ok(Err(error)) => {
                if error.is_missing_program() {
                    // The cache may be deleted at any time; what is gone is made again.
                    self.prepared = None;
                }
                Err(self.loss_without_life(with_causes(&error)))
            }
            Err(join) => Err(self.loss_without_life(join.to_string())),
        }
    }

    /// One life, from a started (or adopted) process to its end.
    async fn live(&mut self, mut life: Life, loading: Option<tokio::sync::SemaphorePermit<'_>>) -> After {
        let mut serving =
            Serving::new(Arc::clone(&self.shared), self.seat.clone(), self.key.clone(), self.pool.kind);
        let fault = tokio::select! {
            fault = serving.run(&mut life, loading) => Some(fault),
            () = self.orders.unwanted() => None,
        };
        serving.settled().await;
        let Some(fault) = fault else {
            let keep = self.pool.on_exit == OnExit::Keep && self.orders.shutting_down();
            if keep && life.record.handoff.is_some() {
                tracing::info!(replica = %self.key, pid = life.engine.pid(), "the engine is left running");
            } else {
                self.finish(&life, self.shared.timings.stop_grace).await;
                self.seat.warmup(StepStatus::Pending, "stopped");
            }
            return After::Stopped;
        };
        // Whatever is wrong with it, it will not end by itself politely, and nobody waits for it.
        self.finish(&life, Duration::ZERO).await;
        self.lost(&life, fault, serving.served()).await
    }

    /// The claim goes first: nobody may be sent to an engine that is about to end.
    async fn finish(&self, life: &Life, grace: Duration) {
        self.blocking(|shared, key| {
            if let Err(error) = shared.handoffs.withdraw(&key) {
                tracing::error!(replica = %key, %error, "the handoff cannot be withdrawn; orchestratord's own probe will notice the loss");
            }
        })
        .await;
        tokio::select! {
            biased;
            () = self.shared.hurry.cancelled() => life.engine.terminate(Duration::ZERO).await,
            exit = life.engine.terminate(grace) => exit,
        };
        self.blocking(|shared, key| {
            if let Err(error) = shared.run.forget(&key) {
                tracing::warn!(replica = %key, %error, "the identity record of an ended engine cannot be removed");
            }
        })
        .await;
    }

    async fn blocking(&self, work: impl FnOnce(&Shared, ReplicaKey) + Send + 'static) {
        let (shared, key) = (Arc::clone(&self.shared), self.key.clone());
        let _panicked_and_logged = tokio::task::spawn_blocking(move || work(&shared, key)).await;
    }

    async fn lost(&mut self, life: &Life, fault: Fault, served: Option<Duration>) -> After {
        let log = life.log.clone();
        let path = log.path().to_owned();
        let tail =
            tokio::task::spawn_blocking(move || log.tail(crate::loss::LOG_LINES)).await.unwrap_or_default();
        let loss = Loss::explain(&fault, served.is_some(), &path, tail);
        if served.is_some() {
            self.ports_taken = 0;
            self.prepared_anew = false;
        }
        if loss.cause == Cause::PortTaken && self.ports_taken < PORT_TRIES {
            self.ports_taken += 1;
            tracing::info!(replica = %self.key, port = life.record.port, "the port was taken; another one is tried");
            return After::Pause(Pause::none("the port was taken; trying another one"));
        }
        self.ports_taken = 0;
        self.count(loss, served.unwrap_or_default())
    }

    fn loss_without_life(&mut self, message: String) -> After {
        self.count(Loss::plain(Cause::Launch, message), Duration::ZERO)
    }

    fn count(&mut self, loss: Loss, served: Duration) -> After {
        if loss.cause == Cause::ModelNotFound && !self.prepared_anew {
            // The cache may be deleted at any time; only a model that stays away needs a change.
            self.prepared_anew = true;
            self.prepared = None;
        } else if loss.cause.needs_a_change() {
            return After::Failed(Box::new(loss.into_wire()));
        }
        self.shared.metrics.lost(&self.key, loss.cause);
        let next = self.schedule.lost(served, jitter());
        self.shared.metrics.breaker(&self.key, matches!(next, Next::Trial(_)));
        tracing::warn!(
            replica = %self.key, cause = loss.cause.as_str(), losses = self.schedule.losses(), next = ?next,
            "{}", first_line(&loss.message)
        );
        self.seat.update(|r| r.last_error = Some(loss.into_wire()));
        After::Pause(Pause::after_loss(next))
    }
}

/// Whether a failed step is the end of it is decided when its preparation has returned; clients take
/// a failed step as final.
fn not_final(mut step: PreparationStep) -> PreparationStep {
    if step.status == StepStatus::Failed {
        step.status = StepStatus::Running;
    }
    step
}

/// Between 0 and 1; without randomness from the kernel, none.
fn jitter() -> f64 {
    let digits = random_key().ok().and_then(|key| u32::from_str_radix(&key[..8], 16).ok());
    f64::from(digits.unwrap_or(0)) / f64::from(u32::MAX)
}

/// An error and its causes in one line, for people.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
