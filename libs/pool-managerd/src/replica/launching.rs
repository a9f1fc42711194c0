//! The start and the end of an engine's process, as its replica orders them.
//!
//! Does not watch it in between (`serving`) and does not say what follows a loss (`losing`).

use std::sync::Arc;
use std::time::Duration;

use wire::{PreparedEngine, ReplicaKey};

use super::{After, Replica};
use crate::classify::Cause;
use crate::launch::{Berth, Life, launch};
use crate::loss::Loss;
use crate::pause::Pause;
use crate::shared::Shared;

/// So many looks in a row must find the port of an engine that is ending closed.
const CLOSED_LOOKS: u32 = 3;
const CLOSED_PERIOD: Duration = Duration::from_millis(150);

impl Replica {
    /// Never dropped half-way: a process that was started must not be forgotten.
    pub(super) async fn launch(&mut self, prepared: PreparedEngine) -> Result<Life, After> {
        let outcome = tokio::task::spawn_blocking({
            let (shared, pool, model) =
                (Arc::clone(&self.shared), Arc::clone(&self.target.pool), self.seat.model());
            move || launch(Berth::Own, &shared.run, &shared.inherited, &pool, &prepared, model)
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

    /// Ends an engine that is not the one that is wanted now.
    pub(super) async fn discard(&mut self, life: Option<Life>) {
        if let Some(life) = life {
            tracing::info!(replica = %self.key, pid = life.engine.pid(), "the running engine is outdated and is stopped");
            self.finish(&life, self.shared.timings.stop_grace).await;
        }
    }

    /// The claim goes first: nobody may be sent to an engine that is about to end.
    pub(super) async fn finish(&self, life: &Life, grace: Duration) {
        self.blocking(|shared, key| {
            if let Err(error) = shared.handoffs.withdraw(&key) {
                tracing::error!(replica = %key, %error, "the handoff cannot be withdrawn; orchestratord's own probe will notice the loss");
            }
        })
        .await;
        end_process(&self.shared, &self.key, life, grace).await;
    }

    async fn blocking(&self, work: impl FnOnce(&Shared, ReplicaKey) + Send + 'static) {
        let (shared, key) = (Arc::clone(&self.shared), self.key.clone());
        let _panicked_and_logged = tokio::task::spawn_blocking(move || work(&shared, key)).await;
    }
}

/// Ends a process and forgets its life. Whoever published it withdraws the claim first.
pub(super) async fn end_process(shared: &Arc<Shared>, key: &ReplicaKey, life: &Life, grace: Duration) {
    tokio::select! {
        biased;
        () = shared.hurry.cancelled() => life.engine.terminate(Duration::ZERO).await,
        () = deaf(life), if !grace.is_zero() => life.engine.terminate(Duration::ZERO).await,
        exit = life.engine.terminate(grace) => exit,
    };
    let (forgetting, of, generation) = (Arc::clone(shared), key.clone(), life.record.generation);
    let forgotten = tokio::task::spawn_blocking(move || forgetting.run.forget(&of, generation)).await;
    if let Ok(Err(error)) = forgotten {
        tracing::warn!(replica = %key, %error, "the identity record of an ended engine cannot be removed");
    }
}

/// Resolves when an engine that was ready has closed its port for some time and is still there. On
/// TERM llama-server stops computing and closes its port, but then waits for every client that still
/// holds a request open; none of them will get another byte, so there is nothing left to wait for.
async fn deaf(life: &Life) {
    if life.record.handoff.is_none() {
        return std::future::pending().await;
    }
    let (pid, port) = (life.engine.pid(), life.record.port);
    let mut closed = 0;
    while closed < CLOSED_LOOKS {
        tokio::time::sleep(CLOSED_PERIOD).await;
        let open = tokio::task::spawn_blocking(move || child::listens_on(pid, port)).await;
        closed = if matches!(open, Ok(Ok(false))) { closed + 1 } else { 0 };
    }
    tracing::info!(pid, "the engine has closed its port and waits for its clients; it is ended now");
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
