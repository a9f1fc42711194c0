//! An engine that shall take the place of one that serves: prepared, and where there is memory for both
//! also started and proven, while the old one goes on.
//!
//! A task of its own, which its replica always waits for: told to give up, it ends what it started.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use provisioners_engine_provisioner::Cancel;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wire::pool::ReplicaError;
use wire::{ModelRecord, PreparedEngine, ReplicaKey, StepStatus};

use super::launching::{end_process, with_causes};
use super::losing::explain;
use crate::admission::{Claim, Placement};
use crate::board::Seat;
use crate::classify::Cause;
use crate::launch::{Berth, Life, launch, size};
use crate::loss::{Fault, Loss};
use crate::memory::{Room, resident, room};
use crate::prepare::Progress;
use crate::serving::Serving;
use crate::shared::Shared;
use crate::target::Target;

/// A port that was taken is tried again at once, so many times.
const PORT_TRIES: u32 = 5;

/// What came of it.
pub(super) enum Outcome {
    /// It serves: its claim is published in place of the old one's, which must now be drained.
    TookOver(Box<Life>),
    /// It is prepared; the old engine must end before it is started.
    NeedsItsPlace(Box<PreparedEngine>, Option<Box<ModelRecord>>),
    /// It will not serve; nothing of it runs, and the old engine was not touched.
    Refused(Box<ReplicaError>),
    GivenUp,
}

/// The task.
pub(super) struct Candidate {
    pub(super) target: Arc<Target>,
    give_up: CancellationToken,
    task: JoinHandle<Outcome>,
}

/// What the engine that serves uses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Serves {
    pub(super) pid: u32,
    pub(super) model_bytes: u64,
}

struct Work {
    shared: Arc<Shared>,
    target: Arc<Target>,
    key: ReplicaKey,
    seat: Seat,
    serves: Serves,
    give_up: CancellationToken,
}

impl Candidate {
    pub(super) fn begin(
        shared: &Arc<Shared>,
        target: Arc<Target>,
        key: &ReplicaKey,
        seat: &Seat,
        serves: Serves,
    ) -> Self {
        let give_up = CancellationToken::new();
        let work = Work {
            shared: Arc::clone(shared),
            target: Arc::clone(&target),
            key: key.clone(),
            seat: seat.clone(),
            serves,
            give_up: give_up.clone(),
        };
        Self { target, give_up, task: tokio::spawn(work.run()) }
    }

    /// Waits for what comes of it.
    pub(super) async fn outcome(&mut self) -> Outcome {
        (&mut self.task).await.unwrap_or_else(|join| {
            Outcome::Refused(Box::new(Loss::plain(Cause::Launch, join.to_string()).into_wire()))
        })
    }

    /// Ends it. What had taken over by then is returned: it is the replica's engine now.
    pub(super) async fn give_up(mut self) -> Option<(Arc<Target>, Life)> {
        self.give_up.cancel();
        match self.outcome().await {
            Outcome::TookOver(life) => Some((self.target, *life)),
            Outcome::NeedsItsPlace(..) | Outcome::Refused(_) | Outcome::GivenUp => None,
        }
    }
}

impl Work {
    async fn run(self) -> Outcome {
        let (prepared, model) = match self.prepare().await {
            Ok(prepared) => prepared,
            Err(outcome) => return outcome,
        };
        if !self.target.beside {
            return Outcome::NeedsItsPlace(Box::new(prepared), model.map(Box::new));
        }
        if prepared.memory.is_some() {
            // Never more than there is for a moment's comfort, whatever the pool allows.
            let admitted =
                self.shared.ledger.admit(&self.target.pool, &prepared, &self.shared.cards, false).await;
            return match admitted {
                Ok((placement, claim)) => self.beside(&prepared, model, &placement, Some(claim)).await,
                Err(no_room) => {
                    tracing::info!(
                        replica = %self.key, %no_room,
                        "no room for both engines; the old one ends before the new one starts"
                    );
                    Outcome::NeedsItsPlace(Box::new(prepared), model.map(Box::new))
                }
            };
        }
        let (new_model, old) = (size(&prepared.model_path), self.serves);
        match room(&prepared, new_model, old.model_bytes, resident(old.pid), (self.shared.memory)()) {
            Room::Enough => {}
            Room::TooLittle { needed, available } => {
                tracing::info!(
                    replica = %self.key, needed, available,
                    "no room for both engines; the old one ends before the new one starts"
                );
                return Outcome::NeedsItsPlace(Box::new(prepared), model.map(Box::new));
            }
            Room::Unknown => return Outcome::NeedsItsPlace(Box::new(prepared), model.map(Box::new)),
        }
        let placement = Placement { device_mask: prepared.device_mask.clone(), ..Placement::default() };
        self.beside(&prepared, model, &placement, None).await
    }

    /// Starts and proves it beside the old engine.
    async fn beside(
        &self,
        prepared: &PreparedEngine,
        model: Option<ModelRecord>,
        placement: &Placement,
        mut claim: Option<Claim>,
    ) -> Outcome {
        let mut tries = 0;
        loop {
            match self.attempt(prepared, placement, claim.as_ref(), model.clone()).await {
                Err(Refusal::PortTaken) if tries < PORT_TRIES => tries += 1,
                Err(Refusal::PortTaken) => {
                    let words = format!("every port it was given was taken, {tries} times in a row");
                    return Outcome::Refused(Box::new(Loss::plain(Cause::PortTaken, words).into_wire()));
                }
                Err(Refusal::Because(error)) => return Outcome::Refused(error),
                Err(Refusal::GivenUp) => return Outcome::GivenUp,
                Ok(mut life) => {
                    life.claim = claim.take();
                    return Outcome::TookOver(Box::new(life));
                }
            }
        }
    }

    async fn prepare(&self) -> Result<(PreparedEngine, Option<ModelRecord>), Outcome> {
        let _turn = tokio::select! {
            turn = self.shared.provisioning.lock() => turn,
            () = self.give_up.cancelled() => return Err(Outcome::GivenUp),
        };
        let (cancel, model) = (Cancel::new(), Arc::new(Mutex::new(None)));
        let mut work = tokio::task::spawn_blocking({
            let (shared, target, cancel) =
                (Arc::clone(&self.shared), Arc::clone(&self.target), cancel.clone());
            let (replica, steps, staged) = (self.key.replica.clone(), self.seat.clone(), Arc::clone(&model));
            // The pool's model is the old one until the new engine serves.
            let progress = Progress::new(
                move |step| steps.step(step),
                move |record| *staged.lock().unwrap_or_else(PoisonError::into_inner) = Some(record),
            );
            move || shared.preparer.prepare(&target.pool, &replica, &progress, &cancel)
        });
        let prepared = tokio::select! {
            prepared = &mut work => prepared,
            () = self.give_up.cancelled() => {
                cancel.cancel();
                let _whatever_it_came_to = work.await;
                return Err(Outcome::GivenUp);
            }
        };
        let loss = match prepared {
            Ok(Ok(prepared)) => {
                let model = model.lock().unwrap_or_else(PoisonError::into_inner).take();
                return Ok((prepared, model));
            }
            Ok(Err(error)) => {
                let mut loss = Loss::plain(Cause::Provisioning, error.message);
                loss.remedy = error.remedy.or(loss.remedy);
                loss
            }
            Err(join) => Loss::plain(Cause::Provisioning, format!("preparing the engine broke off: {join}")),
        };
        self.seat.preparation(StepStatus::Failed, None);
        Err(Outcome::Refused(Box::new(loss.into_wire())))
    }

    /// One start, up to the published claim.
    async fn attempt(
        &self,
        prepared: &PreparedEngine,
        placement: &Placement,
        claim: Option<&Claim>,
        model: Option<ModelRecord>,
    ) -> Result<Life, Refusal> {
        let loading = tokio::select! {
            turn = self.shared.turn_to_load(&self.seat) => turn,
            () = self.give_up.cancelled() => return Err(Refusal::GivenUp),
        };
        let mut life = self.launch(prepared, placement, model).await?;
        if let Some(claim) = claim {
            claim.started(life.engine.pid());
        }
        let serving = Serving::new(
            Arc::clone(&self.shared),
            self.seat.clone(),
            self.key.clone(),
            Arc::clone(&self.target.pool),
        );
        let proven = tokio::select! {
            proven = serving.prove(&mut life) => proven.map_err(Some),
            () = self.give_up.cancelled() => Err(None),
        };
        drop(loading);
        let refusal = match proven {
            Ok(()) => match self.take_over(life).await {
                Ok(life) => return Ok(life),
                Err((failed, refusal)) => {
                    life = failed;
                    refusal
                }
            },
            Err(None) => Refusal::GivenUp,
            Err(Some(fault)) => self.explain(&life, &fault).await,
        };
        end_process(&self.shared, &self.key, &life, Duration::ZERO).await;
        Err(refusal)
    }

    /// Never dropped half-way: a process that was started must not be forgotten.
    async fn launch(
        &self,
        prepared: &PreparedEngine,
        placement: &Placement,
        model: Option<ModelRecord>,
    ) -> Result<Life, Refusal> {
        let started = tokio::task::spawn_blocking({
            let (shared, target) = (Arc::clone(&self.shared), Arc::clone(&self.target));
            let (prepared, placement) = (prepared.clone(), placement.clone());
            move || {
                let (run, inherited) = (&shared.run, &shared.inherited);
                launch(Berth::Beside, run, inherited, &target.pool, &prepared, &placement, model)
            }
        });
        let why = match started.await {
            Ok(Ok(life)) => return Ok(life),
            Ok(Err(error)) => with_causes(&error),
            Err(join) => join.to_string(),
        };
        Err(Refusal::because(Loss::plain(Cause::Launch, why)))
    }

    async fn explain(&self, life: &Life, fault: &Fault) -> Refusal {
        let loss = explain(&self.shared, life, fault, false).await;
        if loss.cause == Cause::PortTaken { Refusal::PortTaken } else { Refusal::because(loss) }
    }

    /// From the old engine's record and claim to the new one's. The record goes first: whatever
    /// happens in between, the next manager finds one engine to adopt and ends the other.
    async fn take_over(&self, mut life: Life) -> Result<Life, (Life, Refusal)> {
        let (shared, key) = (Arc::clone(&self.shared), self.key.clone());
        let taken = tokio::task::spawn_blocking(move || {
            let record = &life.record;
            let written = shared.run.write(record).map_err(|error| with_causes(&error)).and_then(|()| {
                record.handoff.as_ref().map_or(Ok(()), |handoff| {
                    shared.handoffs.publish(handoff).map_err(|error| with_causes(&error))
                })
            });
            if written.is_ok() {
                let renamed = life.log.take_place(shared.run.log(&key));
                if let Err(error) = renamed.and_then(|()| shared.run.forget_candidate(&key)) {
                    tracing::warn!(replica = %key, %error, "the files of the new engine keep their names");
                }
            }
            (life, written)
        });
        // Only a panic in there would lose the process, and then the marker finds it at the next start.
        match taken.await {
            Ok((life, Ok(()))) => Ok(life),
            Ok((life, Err(why))) => {
                let words = format!("the new engine is ready but cannot be published: {why}");
                Err((life, Refusal::because(Loss::plain(Cause::Launch, words))))
            }
            Err(join) => std::panic::resume_unwind(join.into_panic()),
        }
    }
}

/// Why one start came to nothing.
enum Refusal {
    PortTaken,
    Because(Box<ReplicaError>),
    GivenUp,
}

impl Refusal {
    fn because(loss: Loss) -> Self {
        Self::Because(Box::new(loss.into_wire()))
    }
}
