//! An engine that serves, until it does not any more: its exit, `/health`, `/slots`, and what is done
//! for it meanwhile. Never a completion: a canary would take a slot that belongs to a client.

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};
use wire::ReplicaKey;
use wire::config::PoolKind;

use crate::engine_http::{EngineClient, Health, Slots};
use crate::launch::Life;
use crate::loss::Fault;
use crate::progress::Progress;
use crate::serving::Serving;
use crate::shared::Shared;

/// The memory of cards is looked at this often.
const MEMORY_LOOK: Duration = Duration::from_secs(30);

impl Serving {
    /// Until it exits, stops answering or gets nowhere. `known`: it has generated before this watch.
    pub(crate) async fn watch(&self, life: &Life, client: &EngineClient, known: bool) -> Fault {
        tokio::select! {
            biased;
            exit = life.engine.exited() => Fault::Exited(exit),
            fault = self.liveness(life, client) => fault,
            fault = self.progress(client, known) => fault,
            never = housekeeping(&self.shared, &self.key, life) => match never {},
            never = self.forget_losses() => match never {},
            never = self.measure(life) => match never {},
        }
    }

    async fn liveness(&self, life: &Life, client: &EngineClient) -> Fault {
        let timings = &self.shared.timings;
        let mut ticks = tokio::time::interval(timings.liveness_period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut missed = 0;
        loop {
            ticks.tick().await;
            self.seat.watched();
            let last = match client.health(timings.liveness_timeout).await {
                Health::Ready => {
                    missed = 0;
                    continue;
                }
                Health::Loading => "it says that it is loading again".to_owned(),
                Health::Down(why) => why,
            };
            missed += 1;
            if missed >= timings.liveness_fall {
                return Fault::unresponsive(life.engine.pid(), missed, last);
            }
        }
    }

    async fn progress(&self, client: &EngineClient, known: bool) -> Fault {
        let timings = &self.shared.timings;
        let mut progress = Progress::new(timings.progress, self.pool.kind != PoolKind::Chat, known);
        let mut ticks = tokio::time::interval(timings.progress_period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let begun = Instant::now();
        loop {
            ticks.tick().await;
            let slots = match client.slots(timings.liveness_timeout).await {
                Slots::Seen(slots) => Some(slots),
                Slots::Silent => None,
                Slots::Unreadable(why) => {
                    tracing::warn!(replica = %self.key, why, "the engine does not show its slots; whether it generates is not watched");
                    return std::future::pending().await;
                }
            };
            if let Some(stall) = progress.look(begun.elapsed(), slots.as_deref()) {
                return Fault::Stalled(stall);
            }
        }
    }

    /// What it has of its cards takes the place of what was thought: it grows with what it is asked.
    async fn measure(&self, life: &Life) -> Infallible {
        if life.record.device_mask.is_none() {
            return std::future::pending().await;
        }
        loop {
            self.shared.ledger.look(&self.shared.cards).await;
            tokio::time::sleep(MEMORY_LOOK).await;
        }
    }

    /// A life that has served long enough clears what is shown of earlier ones.
    async fn forget_losses(&self) -> Infallible {
        tokio::time::sleep(self.shared.timings.restart.stable_after).await;
        self.shared.metrics.breaker(&self.key, false);
        self.seat.update(|r| r.failures = 0);
        std::future::pending().await
    }
}

/// What is done for an engine for as long as it runs, also while it starts and while it finishes what it has.
pub(crate) async fn housekeeping(shared: &Shared, replica: &ReplicaKey, life: &Life) -> Infallible {
    loop {
        tokio::time::sleep(shared.timings.log_period).await;
        // A kill of another process long ago says nothing about the end of this one.
        let _kills_so_far = life.memory_kills.as_ref().map(child::MemoryKills::moved);
        let (log, cap_bytes) = (life.log.clone(), shared.timings.log_cap_bytes);
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || log.cap(cap_bytes)).await {
            tracing::warn!(%replica, %error, "the engine's log cannot be cut");
        }
    }
}
