//! Watches what becomes of an order until every replica has followed it, and says so in its operation.

use std::sync::Arc;

use wire::pool::ReplicaError;
use wire::{Phase, PoolId};

use crate::board::{Board, ReplicaState};
use crate::operations::Operation;

/// Looks at the replicas of one pool whenever something changes.
pub(super) struct Watcher {
    board: Arc<Board>,
    pool: PoolId,
}

/// How one replica stands to an order.
pub(super) enum Stand {
    Done,
    /// It is not its turn.
    Later,
    OnTheWay(Phase),
    /// It will not get there by itself.
    Stuck(Option<ReplicaError>),
}

impl Watcher {
    pub(super) fn new(board: Arc<Board>, pool: PoolId) -> Self {
        Self { board, pool }
    }

    /// Returns when every replica is done or stuck. `None`: the operation was called off.
    pub(super) async fn settled(
        &self,
        operation: &Operation,
        stand: impl Fn(usize, &ReplicaState) -> Stand,
    ) -> Option<Vec<Stand>> {
        let mut changed = self.board.changed();
        loop {
            changed.borrow_and_update();
            let stands = self.look(&stand);
            operation.progress(done(&stands), doing(&stands));
            if !stands.iter().any(|stand| matches!(stand, Stand::OnTheWay(_))) {
                return Some(stands);
            }
            tokio::select! {
                () = operation.called_off() => return None,
                // The board cannot go away while we hold it.
                _ = changed.changed() => {}
            }
        }
    }

    fn look(&self, stand: impl Fn(usize, &ReplicaState) -> Stand) -> Vec<Stand> {
        let number = std::cell::Cell::new(0);
        self.board.replicas(&self.pool, |replica| stand(number.replace(number.get() + 1), replica))
    }
}

/// Until every replica has stopped.
pub(super) async fn drain(watcher: Watcher, operation: Operation) {
    if watcher.settled(&operation, |_, replica| stopped(replica)).await.is_none() {
        return;
    }
    let cut_off: u32 = watcher.board.replicas(&watcher.pool, |replica| replica.cut_off).iter().sum();
    operation.succeeded(match cut_off {
        0 => "stopped, after everything that ran had ended".to_owned(),
        n => format!("stopped; {n} of what ran had not ended at the deadline and was cut off"),
    });
}

/// Until every replica has stopped.
pub(super) async fn stop(watcher: Watcher, operation: Operation) {
    if watcher.settled(&operation, |_, replica| stopped(replica)).await.is_some() {
        operation.succeeded("stopped");
    }
}

/// Until every replica serves, or cannot.
pub(super) async fn start(watcher: Watcher, operation: Operation, requests: Vec<u64>) {
    let serves = |number: usize, replica: &ReplicaState| {
        let asked = requests.get(number).copied().unwrap_or(0);
        match replica.stands() {
            Phase::Ready => Stand::Done,
            // Why it could not run before does not matter any more.
            phase if replica.request < asked => Stand::OnTheWay(phase),
            Phase::Failed | Phase::BreakerOpen => Stand::Stuck(replica.last_error.clone()),
            phase => Stand::OnTheWay(phase),
        }
    };
    let Some(stands) = watcher.settled(&operation, serves).await else { return };
    let total = stands.len();
    let ready = done(&stands);
    let mut stuck = stands.into_iter().filter_map(|stand| match stand {
        Stand::Stuck(error) => Some(error),
        Stand::Done | Stand::Later | Stand::OnTheWay(_) => None,
    });
    match stuck.next() {
        None => operation.succeeded("serving"),
        Some(error) => operation.failed(format!("{ready} of {total} replicas serve"), error),
    }
}

pub(super) fn stopped(replica: &ReplicaState) -> Stand {
    match replica.stands() {
        Phase::Stopped => Stand::Done,
        phase => Stand::OnTheWay(phase),
    }
}

pub(super) fn done(stands: &[Stand]) -> u32 {
    let done = stands.iter().filter(|stand| matches!(stand, Stand::Done)).count();
    u32::try_from(done).unwrap_or(u32::MAX)
}

fn doing(stands: &[Stand]) -> String {
    let words = |stand: &Stand| match stand {
        Stand::Done | Stand::Later | Stand::Stuck(_) => None,
        Stand::OnTheWay(phase) => Some(match phase {
            Phase::Provisioning => "its engine and model are being prepared",
            Phase::Starting => "its engine is loading",
            Phase::Ready => "it serves",
            Phase::Draining => "it finishes what it has",
            Phase::Backoff => "it was lost and starts again soon",
            Phase::BreakerOpen => "its breaker is open",
            Phase::Failed => "it cannot run",
            Phase::Stopped => "it is stopped",
        }),
    };
    stands
        .iter()
        .enumerate()
        .find_map(|(number, stand)| Some(format!("replica r{number}: {}", words(stand)?)))
        .unwrap_or_default()
}
