//! A drain: the gate is closed first, then the engine finishes what it has, then it may end. Nothing
//! that runs is cut off before the deadline.
//!
//! Whether it is idle is asked of the engine itself: a manager knows of no task.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use wire::{HandoffState, Phase, StepStatus};

use super::Replica;
use crate::engine_http::EngineClient;
use crate::launch::Life;
use crate::loss::Fault;
use crate::serving::Serving;

/// How a drain ended.
pub(super) enum Drained {
    /// The engine may end now; so many generations are cut off by it.
    Over { cut_off: u32 },
    /// It is to serve again.
    CalledOff,
    /// It ended by itself.
    Lost(Fault),
}

/// What a drain is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// Somebody asked for it, until somebody asks for something else.
    Asked,
    /// Another engine is to take its place, unless the replica is to run no more.
    Exchange,
}

impl Replica {
    /// Drains an engine that serves.
    pub(super) async fn drain(
        &mut self,
        life: &mut Life,
        serving: &mut Serving,
        until: Instant,
        why: Why,
    ) -> Drained {
        let client = EngineClient::new(life.record.port, life.api_key.clone());
        self.seat.update(|r| r.phase(Phase::Draining));
        self.seat.warmup(StepStatus::Running, "draining: it finishes what it has");
        tracing::info!(replica = %self.key, "draining");
        let closed = self.claim(life, HandoffState::Draining, until).await;
        if !closed {
            // Nobody knows that the gate is closed, so there is nothing to wait for but the deadline.
            tracing::error!(replica = %self.key, "the handoff cannot be marked as draining before the deadline");
        }
        let timings = self.shared.timings.clone();
        // Whoever reads handoffs gets the time to see it, so that what is cut off knows why.
        let until = until.max(Instant::now() + timings.drain_settle);
        let orders = &mut self.orders;
        let turned = async {
            match why {
                Why::Asked => orders.not_to_drain().await,
                Why::Exchange => orders.unwanted().await,
            }
        };
        tokio::select! {
            biased;
            fault = serving.run(life, None) => return Drained::Lost(fault),
            () = turned => {}
            () = idle(&client, timings.drain_settle, timings.drain_poll, timings.liveness_timeout), if closed => {
                return Drained::Over { cut_off: 0 };
            }
            () = tokio::time::sleep_until(until) => {
                let cut_off = client.busy_slots(timings.liveness_timeout).await.unwrap_or(0);
                return Drained::Over { cut_off };
            }
        }
        if why == Why::Exchange {
            return Drained::CalledOff;
        }
        if !self.orders.are_to_run() {
            return Drained::Over { cut_off: client.busy_slots(timings.liveness_timeout).await.unwrap_or(0) };
        }
        let patience = Instant::now() + timings.liveness_timeout;
        if !self.claim(life, HandoffState::Ready, patience).await {
            tracing::error!(replica = %self.key, "the handoff cannot be marked as ready again; it is stopped and started");
            return Drained::Over { cut_off: 0 };
        }
        tracing::info!(replica = %self.key, "the drain was called off");
        self.seat.update(|r| r.phase(Phase::Ready));
        self.seat.warmup(StepStatus::Completed, "the engine is ready");
        Drained::CalledOff
    }

    /// Publishes the claim with another state. `false`: it could not be written before `until`.
    async fn claim(&self, life: &mut Life, state: HandoffState, until: Instant) -> bool {
        let Some(handoff) = &mut life.record.handoff else { return false };
        handoff.state = state;
        let handoff = handoff.clone();
        loop {
            let (shared, handoff) = (Arc::clone(&self.shared), handoff.clone());
            let published = tokio::task::spawn_blocking(move || shared.handoffs.publish(&handoff)).await;
            match published {
                Ok(Ok(())) => return true,
                Ok(Err(error)) => tracing::warn!(replica = %self.key, %error, "trying again"),
                Err(join) => tracing::warn!(replica = %self.key, error = %join, "trying again"),
            }
            let next = Instant::now() + self.shared.timings.disk_retry;
            if next >= until {
                return false;
            }
            tokio::time::sleep_until(next).await;
        }
    }
}

/// Waits until every look for the length of `settle` finds no slot busy. Whoever reads handoffs may
/// have sent a task a moment before it saw that the gate is closed; that one is seen here.
pub(super) async fn idle(client: &EngineClient, settle: Duration, poll: Duration, limit: Duration) {
    let mut idle_since = None;
    loop {
        match client.busy_slots(limit).await {
            Ok(0) => {
                let since = *idle_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= settle {
                    return;
                }
            }
            // An engine that does not say is taken as busy.
            Ok(_) | Err(_) => idle_since = None,
        }
        tokio::time::sleep(poll).await;
    }
}
