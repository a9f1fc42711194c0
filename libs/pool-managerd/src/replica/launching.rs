//! The start and the end of an engine's process, as its replica orders them.
//!
//! Does not watch it in between (`serving`) and does not say what follows a loss (`losing`).

use std::sync::Arc;
use std::time::Duration;

use wire::{Phase, PreparedEngine, ReplicaKey};

use super::{After, Replica};
use crate::admission::{Claim, Placement};
use crate::classify::Cause;
use crate::engine_http::{EngineClient, Slots};
use crate::launch::{Berth, Life, launch};
use crate::loss::Loss;
use crate::pause::Pause;
use crate::shared::Shared;

/// So many looks in a row must find an engine that is ending silent.
const SILENT_LOOKS: u32 = 3;
const LOOK_PERIOD: Duration = Duration::from_millis(150);
/// How long an engine that is ending may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_millis(300);

impl Replica {
    /// Never dropped half-way: a process that was started must not be forgotten.
    pub(super) async fn launch(
        &mut self,
        prepared: PreparedEngine,
        placement: Placement,
    ) -> Result<Life, After> {
        let outcome = tokio::task::spawn_blocking({
            let (shared, pool, model) =
                (Arc::clone(&self.shared), Arc::clone(&self.target.pool), self.seat.model());
            move || launch(Berth::Own, &shared.run, &shared.inherited, &pool, &prepared, &placement, model)
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
            Ok(Err(error)) if error.is_unconfined() => Err(self.refused_unconfined(with_causes(&error))),
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

    /// Memory for it, or why there is none. Whoever is refused waits for some in the line.
    pub(super) async fn admit(&mut self, prepared: &PreparedEngine) -> Result<(Placement, Claim), After> {
        let (shared, pool, had) = (Arc::clone(&self.shared), Arc::clone(&self.target.pool), self.kept.take());
        let oversubscribe = self.seat.config().allow_oversubscribe;
        let asked = (pool.as_ref(), prepared);
        let admitted =
            shared.ledger.admit_or_wait(asked, &shared.cards, oversubscribe, had, &mut self.ticket).await;
        admitted.map_err(|no_room| self.refused_for_memory(no_room.to_string()))
    }

    /// Resolves when there is room for what was refused for want of memory.
    pub(super) async fn has_room(&self) {
        match &self.ticket {
            Some(ticket) => ticket.granted(&self.shared.cards).await,
            None => std::future::pending().await,
        }
    }

    /// What an engine that is gone had is its successor's, where that one is started at once.
    pub(super) fn keep(&mut self, life: &mut Life, after: &After) {
        let at_once = match after {
            After::Again => true,
            After::Pause(pause) => pause.phase != Phase::BreakerOpen,
            After::Stopped | After::Failed(_) => false,
        };
        self.kept = life.claim.take_if(|_| at_once).inspect(Claim::lost);
    }

    /// Neither has memory nor waits for any.
    pub(super) fn let_go(&mut self) {
        (self.kept, self.ticket) = (None, None);
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
    let politely = async {
        if life.record.handoff.is_some() && !grace.is_zero() {
            unused(life).await;
        }
        life.engine.terminate(grace).await
    };
    tokio::select! {
        biased;
        () = shared.hurry.cancelled() => life.engine.terminate(Duration::ZERO).await,
        () = silent(life), if !grace.is_zero() => life.engine.terminate(Duration::ZERO).await,
        exit = politely => exit,
    };
    let (forgetting, of, generation) = (Arc::clone(shared), key.clone(), life.record.generation);
    let forgotten = tokio::task::spawn_blocking(move || forgetting.run.forget(&of, generation)).await;
    if let Ok(Err(error)) = forgotten {
        tracing::warn!(replica = %key, %error, "the identity record of an ended engine cannot be removed");
    }
}

/// Gives clients that have just been told a moment to let go. llama-server's handler for TERM takes a
/// lock that its generating thread may hold, and then hangs: an idle engine does not.
async fn unused(life: &Life) {
    let client = EngineClient::new(life.record.port, life.api_key.clone());
    let idle = async {
        while client.busy_slots(ANSWER_WITHIN).await.is_ok_and(|busy| busy > 0) {
            tokio::time::sleep(ANSWER_WITHIN / 10).await;
        }
    };
    let _still_used = tokio::time::timeout(ANSWER_WITHIN, idle).await;
}

/// Resolves when an engine that is ending has closed its port, or answers nothing, for some time and is
/// still there. After TERM llama-server generates nothing more: it waits for every client that still
/// holds a request open, or hangs in its signal handler. There is nothing left to wait for. One that was
/// never published is no exception: the completion that was to prove it is a generation like any other.
async fn silent(life: &Life) {
    let client = EngineClient::new(life.record.port, life.api_key.clone());
    let (pid, port) = (life.engine.pid(), life.record.port);
    let mut looks = 0;
    while looks < SILENT_LOOKS {
        tokio::time::sleep(LOOK_PERIOD).await;
        let open = tokio::task::spawn_blocking(move || child::listens_on(pid, port)).await;
        let closed = matches!(open, Ok(Ok(false)));
        let silent = closed || matches!(client.slots(ANSWER_WITHIN).await, Slots::Silent);
        looks = if silent { looks + 1 } else { 0 };
    }
    tracing::info!(pid, "the engine that is ending answers nothing any more; it is ended now");
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
