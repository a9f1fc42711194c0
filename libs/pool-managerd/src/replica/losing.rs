//! What follows the loss of an engine: another port, everything prepared anew, a pause from the restart
//! schedule, or the wait for somebody to change something.

use std::time::Duration;

use super::{After, Replica};
use crate::classify::Cause;
use crate::launch::{Life, random_key};
use crate::loss::{Fault, LOG_LINES, Loss};
use crate::pause::{Pause, first_line};
use crate::schedule::Next;
use crate::shared::Shared;

/// A port that was taken is tried again at once, so many times; then it counts as a loss.
const PORT_TRIES: u32 = 5;

impl Replica {
    pub(super) async fn lost(&mut self, life: &Life, fault: Fault, served: Option<Duration>) -> After {
        let loss = explain(&self.shared, life, &fault, served.is_some()).await;
        if served.is_some() {
            self.fallback = None;
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

    pub(super) fn loss_without_life(&mut self, message: String) -> After {
        self.count(Loss::plain(Cause::Launch, message), Duration::ZERO)
    }

    pub(super) fn refused_for_memory(&mut self, message: String) -> After {
        self.count(Loss::plain(Cause::InsufficientMemory, message), Duration::ZERO)
    }

    pub(super) fn refused_unconfined(&mut self, message: String) -> After {
        self.count(Loss::plain(Cause::NoSandbox, message), Duration::ZERO)
    }

    /// For whoever looks, whatever follows.
    pub(super) fn tally(&self, cause: Cause) {
        self.shared.metrics.lost(&self.key, cause);
        self.seat.update(|r| *r.losses.entry(cause.as_str().to_owned()).or_default() += 1);
    }

    fn count(&mut self, loss: Loss, served: Duration) -> After {
        self.tally(loss.cause);
        if let Some(fallback) = self.fallback.take() {
            self.shared.metrics.restarted(&self.key, loss.cause);
            return self.fall_back(fallback, loss.into_wire());
        }
        if loss.cause == Cause::ModelNotFound && !self.prepared_anew {
            // The cache may be deleted at any time; only a model that stays away needs a change.
            self.prepared_anew = true;
            self.prepared = None;
        } else if loss.cause.needs_a_change() {
            return After::Failed(Box::new(loss.into_wire()));
        }
        if self.orders.take_reset() {
            // It was asked for while the engine served: what it forgives came before this loss.
            self.schedule.reset();
        }
        self.shared.metrics.restarted(&self.key, loss.cause);
        let next = self.schedule.lost(served, loss.cause.weight(), jitter());
        self.shared.metrics.breaker(&self.key, matches!(next, Next::Trial(_)));
        tracing::warn!(
            replica = %self.key, cause = loss.cause.as_str(), losses = self.schedule.losses(), next = ?next,
            "{}", first_line(&loss.message)
        );
        self.seat.update(|r| r.last_error = Some(loss.into_wire()));
        After::Pause(Pause::after_loss(next))
    }
}

/// Between 0 and 1; without randomness from the kernel, none.
fn jitter() -> f64 {
    let digits = random_key().ok().and_then(|key| u32::from_str_radix(&key[..8], 16).ok());
    f64::from(digits.unwrap_or(0)) / f64::from(u32::MAX)
}

/// With what the engine wrote last, and what the kernel knows of its end.
pub(super) async fn explain(shared: &Shared, life: &Life, fault: &Fault, served: bool) -> Loss {
    let log = life.log.clone();
    let path = log.path().to_owned();
    let tail = tokio::task::spawn_blocking(move || log.tail(LOG_LINES)).await.unwrap_or_default();
    let killer = life.memory_kills.as_ref().is_some_and(child::MemoryKills::moved);
    let told = match fault {
        Fault::Exited(exit) => {
            let exit = life.engine.exit_status(*exit, shared.timings.exit_status_within).await;
            Some(Fault::Exited(exit))
        }
        _ => None,
    };
    Loss::explain(told.as_ref().unwrap_or(fault), served, killer, &path, tail)
}
