//! A drain: the gate is closed first, then the engine finishes what it has, then it may end. Nothing
//! that runs is cut off before the deadline.
//!
//! Whether it is idle is asked of the engine itself: a manager knows of no task.

use std::sync::Arc;
use std::time::Duration;

use handoff::HandoffError;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use wire::{Handoff, HandoffState, Phase, StepStatus};

use super::Replica;
use crate::engine_http::EngineClient;
use crate::launch::Life;
use crate::loss::Fault;
use crate::serving::Serving;
use crate::shared::Shared;

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
        let timings = self.shared.timings.clone();
        let mut claiming = self.claiming(life, HandoffState::Draining);
        let replica = self.key.clone();
        let over = async {
            let closed = claiming.written(until).await;
            if !closed {
                // Nobody knows that the gate is closed, so there is nothing to wait for but the deadline.
                tracing::error!(%replica, "the handoff cannot be marked as draining before the deadline");
            }
            // Whoever reads handoffs gets the time to see it, so that what is cut off knows why.
            let until = until.max(Instant::now() + timings.drain_settle);
            tokio::select! {
                biased;
                () = idle(&client, timings.drain_settle, timings.drain_poll, timings.liveness_timeout), if closed => 0,
                () = tokio::time::sleep_until(until) => {
                    client.busy_slots(timings.liveness_timeout).await.unwrap_or(0)
                }
            }
        };
        let orders = &mut self.orders;
        let turned = async {
            match why {
                Why::Asked => orders.not_to_drain().await,
                Why::Exchange => orders.unwanted().await,
            }
        };
        let early = tokio::select! {
            biased;
            fault = serving.run(life, None) => Some(Drained::Lost(fault)),
            () = turned => None,
            cut_off = over => Some(Drained::Over { cut_off }),
        };
        claiming.settled().await;
        if let Some(drained) = early {
            return drained;
        }
        if why == Why::Exchange {
            return Drained::CalledOff;
        }
        if !self.orders.are_to_run() {
            return Drained::Over { cut_off: client.busy_slots(timings.liveness_timeout).await.unwrap_or(0) };
        }
        self.reopen(life, serving).await
    }

    /// Opens the gate again.
    async fn reopen(&mut self, life: &mut Life, serving: &mut Serving) -> Drained {
        let patience = Instant::now() + self.shared.timings.liveness_timeout;
        let mut claiming = self.claiming(life, HandoffState::Ready);
        let ended = tokio::select! {
            biased;
            fault = serving.run(life, None) => Some(Drained::Lost(fault)),
            // Whoever asked for the drain looks at the orders again.
            () = self.orders.unwanted() => Some(Drained::CalledOff),
            open = claiming.written(patience) => (!open).then_some(Drained::Over { cut_off: 0 }),
        };
        claiming.settled().await;
        if let Some(ended) = ended {
            if matches!(ended, Drained::Over { .. }) {
                tracing::error!(replica = %self.key, "the handoff cannot be marked as ready again; it is stopped and started");
            }
            return ended;
        }
        tracing::info!(replica = %self.key, "the drain was called off");
        self.seat.update(|r| r.phase(Phase::Ready));
        self.seat.warmup(StepStatus::Completed, "the engine is ready");
        Drained::CalledOff
    }

    /// The claim with another state, to be published.
    fn claiming(&self, life: &mut Life, state: HandoffState) -> Claiming {
        if let Some(handoff) = &mut life.record.handoff {
            handoff.state = state;
        }
        Claiming { shared: Arc::clone(&self.shared), handoff: life.record.handoff.clone(), writing: None }
    }
}

/// A claim on its way to the disk. It borrows nothing of the replica, so that engine and orders can be
/// watched meanwhile.
struct Claiming {
    shared: Arc<Shared>,
    handoff: Option<Handoff>,
    writing: Option<JoinHandle<Result<(), HandoffError>>>,
}

impl Claiming {
    /// Tries until it is written. `false`: it could not be before `until`.
    async fn written(&mut self, until: Instant) -> bool {
        let Some(handoff) = self.handoff.clone() else { return false };
        let replica = format!("{}/{}", handoff.pool_id, handoff.replica_id);
        loop {
            let (shared, handoff) = (Arc::clone(&self.shared), handoff.clone());
            let write = tokio::task::spawn_blocking(move || shared.handoffs.publish(&handoff));
            let published = self.writing.insert(write).await;
            self.writing = None;
            match published {
                Ok(Ok(())) => return true,
                Ok(Err(error)) => tracing::warn!(%replica, %error, "trying again"),
                Err(join) => tracing::warn!(%replica, error = %join, "trying again"),
            }
            let next = Instant::now() + self.shared.timings.disk_retry;
            if next >= until {
                return false;
            }
            tokio::time::sleep_until(next).await;
        }
    }

    /// Waits for a write that was under way when [`written`](Self::written) was dropped: whoever withdraws
    /// the claim before this may find it there again.
    async fn settled(mut self) {
        if let Some(writing) = self.writing.take() {
            let _whatever_it_came_to = writing.await;
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
