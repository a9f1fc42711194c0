//! Old engine, new engine: how a replica goes over to another target without losing what runs, and back
//! to the last good one when the new one does not serve.

use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wire::pool::ReplicaError;
use wire::{ModelRecord, PreparedEngine};

use super::candidate::{Candidate, Serves};
use super::draining::idle;
use super::launching::end_process;
use super::{After, Replica};
use crate::engine_http::EngineClient;
use crate::launch::Life;
use crate::target::Target;
use crate::watch::housekeeping;

/// What served before, for as long as its successor has not.
pub(super) struct Fallback {
    target: Arc<Target>,
    prepared: PreparedEngine,
    model: Option<ModelRecord>,
}

/// An old engine that finishes what it has, beside the one that took its place.
pub(super) struct Retiring {
    now: CancellationToken,
    task: JoinHandle<()>,
}

impl Replica {
    /// Takes up what it is to run now. Earlier losses say nothing about something new. Shown with the phase.
    pub(super) fn take_target(&mut self) {
        let target = self.orders.take_target();
        if target.number == self.target.number || Some(target.number) == self.refused {
            return;
        }
        self.target = target;
        self.prepared = None;
        self.schedule.reset();
    }

    pub(super) fn show_target(&self) {
        let number = self.target.number;
        self.seat.update(|r| r.target = number);
    }

    /// Begins an exchange of an engine that serves, unless there is nothing new about the target.
    pub(super) fn candidate(&mut self, life: &Life) -> Option<Candidate> {
        let target = self.orders.take_target();
        if target.number == self.target.number || Some(target.number) == self.refused {
            return None;
        }
        tracing::info!(replica = %self.key, model = target.pool.model, "preparing an engine to take over");
        let serves = Serves { pid: life.engine.pid(), model_bytes: life.model_bytes };
        Some(Candidate::begin(&self.shared, target, &self.key, &self.seat, serves))
    }

    /// The new engine does not serve; the old one never stopped.
    pub(super) fn refuse(&mut self, number: u64, error: ReplicaError) {
        tracing::warn!(replica = %self.key, cause = error.cause, "the new engine does not serve: {}", error.message);
        self.refused = Some(number);
        self.seat.update(|r| r.refused = Some((number, error)));
    }

    /// Ends the old engine, and starts the new one in its place; goes back to the old one if that fails.
    pub(super) fn exchange_apart(
        &mut self,
        target: Arc<Target>,
        life: &Life,
        prepared: PreparedEngine,
    ) -> After {
        let before = std::mem::replace(&mut self.target, target);
        let (prepared_before, model) = (life.record.prepared.clone(), life.record.model.clone());
        self.fallback = Some(Fallback { target: before, prepared: prepared_before, model });
        self.prepared = Some(prepared);
        self.schedule.reset();
        self.show_target();
        After::Again
    }

    /// Back to what served before. At once: it served a moment ago.
    pub(super) fn fall_back(&mut self, fallback: Fallback, error: ReplicaError) -> After {
        let number = self.target.number;
        self.target = fallback.target;
        self.prepared = Some(fallback.prepared);
        self.seat.set_model(fallback.model);
        self.show_target();
        self.refuse(number, error);
        After::Again
    }

    /// Lets the old engine finish what it has. It takes nothing new: its claim is another's now.
    pub(super) async fn retire(&mut self, old: Life, target: &Target) {
        self.retired().await;
        let (shared, key) = (Arc::clone(&self.shared), self.key.clone());
        let (now, until) = (CancellationToken::new(), Instant::now() + target.patience);
        let hurry = now.clone();
        let task = tokio::spawn(async move {
            let client = EngineClient::new(old.record.port, old.api_key.clone());
            let timings = &shared.timings;
            tokio::select! {
                _ended = old.engine.exited() => {}
                () = idle(&client, timings.drain_settle, timings.drain_poll, timings.liveness_timeout) => {}
                () = tokio::time::sleep_until(until) => {
                    tracing::warn!(replica = %key, pid = old.engine.pid(), "what still ran on the old engine is cut off");
                }
                () = hurry.cancelled() => {}
                never = housekeeping(&shared, &key, &old) => match never {},
            }
            end_process(&shared, &key, &old, shared.timings.stop_grace).await;
            tracing::info!(replica = %key, pid = old.engine.pid(), "the old engine has ended");
        });
        self.retiring = Some(Retiring { now, task });
    }

    /// Waits for an old engine to be gone, without patience.
    pub(super) async fn retired(&mut self) {
        if let Some(retiring) = self.retiring.take() {
            retiring.now.cancel();
            let _panicked_and_logged = retiring.task.await;
        }
    }
}
