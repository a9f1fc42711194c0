//! The operations of this manager: what goes on, one at a time on a pool, and what came of the last
//! ones. A bounded store; conducting them is not done here.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use wire::operation::{OperationList, OperationOutcome, OperationProgress};
use wire::pool::ReplicaError;
use wire::{OperationId, OperationKind, OperationState, OperationView, PoolId, rfc3339};

/// Ended operations that are remembered; running ones always are, and there is one for a pool.
const REMEMBERED: usize = 256;

/// The store. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Operations {
    entries: Arc<Mutex<VecDeque<Entry>>>,
    /// Counts ends, for those who wait for their turn.
    ended: Arc<watch::Sender<u64>>,
}

#[derive(Debug)]
struct Entry {
    view: OperationView,
    called_off: CancellationToken,
}

/// A running operation, held by whoever conducts it. Dropped without an end, it has failed.
#[derive(Debug)]
pub(crate) struct Operation {
    store: Operations,
    id: OperationId,
    called_off: CancellationToken,
}

/// Another operation runs on the pool.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} {id} runs on pool {pool}", .kind.as_str())]
pub(crate) struct Busy {
    pub(crate) id: OperationId,
    pub(crate) kind: OperationKind,
    pub(crate) pool: PoolId,
}

impl Operations {
    /// Begins an operation. What runs on the pool is called off where the new one is to win, else it is in
    /// the way.
    pub(crate) fn begin(&self, kind: OperationKind, pool: &PoolId, replicas: u32) -> Result<Operation, Busy> {
        let mut entries = self.lock();
        if let Some(running) = running_on(&mut entries, pool) {
            if !calls_off(kind, running.view.kind) {
                return Err(running.busy());
            }
            running.called_off.cancel();
            let message = format!("called off by {}", kind.as_str());
            running.end(OperationState::Failed, message, None);
        }
        let called_off = CancellationToken::new();
        let view = OperationView {
            id: OperationId::generate(),
            kind,
            pool_id: pool.clone(),
            state: OperationState::Running,
            progress: OperationProgress { replicas_total: replicas, ..OperationProgress::default() },
            outcome: None,
            started_at: rfc3339(SystemTime::now()),
            ended_at: None,
        };
        let id = view.id.clone();
        entries.push_front(Entry { view, called_off: called_off.clone() });
        forget_oldest(&mut entries);
        tracing::info!(operation = %id, pool = %pool, kind = kind.as_str(), "operation begun");
        Ok(Operation { store: self.clone(), id, called_off })
    }

    /// As [`begin`](Self::begin), after whatever runs on the pool has ended.
    pub(crate) async fn begin_in_turn(&self, kind: OperationKind, pool: &PoolId, replicas: u32) -> Operation {
        let mut ended = self.ended.subscribe();
        loop {
            ended.borrow_and_update();
            if let Ok(operation) = self.begin(kind, pool, replicas) {
                return operation;
            }
            // The sender cannot go away while we hold it.
            let _counted = ended.changed().await;
        }
    }

    /// What runs on a pool.
    pub(crate) fn running(&self, pool: &PoolId) -> Option<Busy> {
        running_on(&mut self.lock(), pool).map(|entry| entry.busy())
    }

    pub(crate) fn list(&self) -> OperationList {
        OperationList { operations: self.lock().iter().map(|entry| entry.view.clone()).collect() }
    }

    pub(crate) fn view(&self, id: &str) -> Option<OperationView> {
        self.lock().iter().find(|entry| entry.view.id.as_str() == id).map(|entry| entry.view.clone())
    }

    fn change(&self, id: &OperationId, change: impl FnOnce(&mut Entry)) {
        let mut entries = self.lock();
        let running = |entry: &&mut Entry| entry.view.id == *id && entry.runs();
        entries.iter_mut().find(running).map(change).unwrap_or_default();
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn runs(&self) -> bool {
        self.view.state == OperationState::Running
    }

    fn busy(&self) -> Busy {
        Busy { id: self.view.id.clone(), kind: self.view.kind, pool: self.view.pool_id.clone() }
    }

    fn end(&mut self, state: OperationState, message: String, error: Option<ReplicaError>) {
        let (id, pool, kind) = (&self.view.id, &self.view.pool_id, self.view.kind.as_str());
        match state {
            OperationState::Succeeded => tracing::info!(operation = %id, %pool, kind, "succeeded: {message}"),
            _ => tracing::warn!(operation = %id, %pool, kind, ?state, "{message}"),
        }
        self.view.state = state;
        self.view.outcome = Some(OperationOutcome { message, error });
        self.view.ended_at = Some(rfc3339(SystemTime::now()));
    }
}

impl Operation {
    pub(crate) fn id(&self) -> &OperationId {
        &self.id
    }

    /// Resolves when another operation has taken its place; it has ended then.
    pub(crate) async fn called_off(&self) {
        self.called_off.cancelled().await;
    }

    pub(crate) fn is_called_off(&self) -> bool {
        self.called_off.is_cancelled()
    }

    pub(crate) fn progress(&self, done: u32, doing: impl Into<String>) {
        let doing = doing.into();
        self.store.change(&self.id, |entry| {
            entry.view.progress.replicas_done = done;
            entry.view.progress.doing = doing;
        });
    }

    pub(crate) fn succeeded(self, message: impl Into<String>) {
        self.end(OperationState::Succeeded, message.into(), None);
    }

    pub(crate) fn rolled_back(self, message: impl Into<String>, error: Option<ReplicaError>) {
        self.end(OperationState::RolledBack, message.into(), error);
    }

    /// How many replicas there are to follow it, where that changes on the way.
    pub(crate) fn replicas(&self, total: usize) {
        let total = u32::try_from(total).unwrap_or(u32::MAX);
        self.store.change(&self.id, |entry| entry.view.progress.replicas_total = total);
    }

    pub(crate) fn failed(self, message: impl Into<String>, error: Option<ReplicaError>) {
        self.end(OperationState::Failed, message.into(), error);
    }

    fn end(&self, state: OperationState, message: String, error: Option<ReplicaError>) {
        self.store.change(&self.id, |entry| {
            if state == OperationState::Succeeded {
                entry.view.progress.replicas_done = entry.view.progress.replicas_total;
            }
            entry.end(state, message, error);
        });
        self.store.ended.send_modify(|ends| *ends += 1);
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        // After an ordered end this changes nothing.
        self.end(OperationState::Failed, "pool-managerd shut down before it was done".to_owned(), None);
    }
}

/// Whether a new operation takes the place of one that runs: whoever wants an engine to end does not wait for one
/// that starts, which may take as long as a model takes to come. A configuration is followed to its end, because
/// what it has half done nobody would know; a stop is short.
fn calls_off(new: OperationKind, running: OperationKind) -> bool {
    use OperationKind::{Drain, Reload, Stop, Undrain};
    match running {
        Drain => matches!(new, Undrain | Stop),
        Undrain | Reload => matches!(new, Drain | Stop),
        _ => false,
    }
}

fn running_on<'a>(entries: &'a mut VecDeque<Entry>, pool: &PoolId) -> Option<&'a mut Entry> {
    entries.iter_mut().find(|entry| entry.view.pool_id == *pool && entry.runs())
}

fn forget_oldest(entries: &mut VecDeque<Entry>) {
    while entries.iter().filter(|entry| !entry.runs()).count() >= REMEMBERED {
        let oldest = entries.iter().rposition(|entry| !entry.runs());
        oldest.and_then(|at| entries.remove(at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(name: &str) -> PoolId {
        PoolId::try_new(name).unwrap()
    }

    /// POOLD-OPS-002
    #[test]
    fn one_operation_runs_on_a_pool_at_a_time_and_others_do_not_mind() {
        let store = Operations::default();
        let drain = store.begin(OperationKind::Drain, &pool("p"), 1).unwrap();
        let busy = store.begin(OperationKind::Reset, &pool("p"), 1).unwrap_err();
        assert_eq!((&busy.id, busy.kind), (drain.id(), OperationKind::Drain));
        store.begin(OperationKind::Reset, &pool("q"), 1).unwrap().succeeded("done");
        drain.succeeded("drained");
        store.begin(OperationKind::Reset, &pool("p"), 1).unwrap();
    }

    /// POOLD-OPS-003
    #[test]
    fn an_undrain_calls_off_a_drain_and_the_drains_own_end_comes_too_late() {
        let store = Operations::default();
        let drain = store.begin(OperationKind::Drain, &pool("p"), 2).unwrap();
        let id = drain.id().clone();
        let _undrain = store.begin(OperationKind::Undrain, &pool("p"), 2).unwrap();
        assert!(drain.called_off.is_cancelled());
        drain.succeeded("drained");
        let view = store.view(id.as_str()).unwrap();
        assert_eq!(view.state, OperationState::Failed);
        assert_eq!(view.outcome.unwrap().message, "called off by undrain");
    }

    /// POOLD-OPS-002, POOLD-OPS-003
    #[test]
    fn who_wants_an_engine_to_end_waits_for_no_start_and_everybody_else_waits() {
        use OperationKind::{Configure, Drain, Reload, Reset, Stop, Undrain};
        let all = [Drain, Undrain, Reload, Reset, Stop, Configure];
        let wins = [
            (Drain, Undrain),
            (Drain, Reload),
            (Stop, Drain),
            (Stop, Undrain),
            (Stop, Reload),
            (Undrain, Drain),
        ];
        for running in all {
            for new in all {
                let store = Operations::default();
                let first = store.begin(running, &pool("p"), 1).unwrap();
                let second = store.begin(new, &pool("p"), 1);
                assert_eq!(second.is_ok(), wins.contains(&(new, running)), "{new:?} while {running:?} runs");
                assert_eq!(first.is_called_off(), second.is_ok(), "{new:?} while {running:?} runs");
            }
        }
    }

    /// POOLD-OPS-001
    #[test]
    fn what_is_dropped_has_failed_and_the_oldest_ended_ones_are_forgotten() {
        let store = Operations::default();
        let kept = store.begin(OperationKind::Drain, &pool("long"), 1).unwrap();
        drop(store.begin(OperationKind::Stop, &pool("p"), 1).unwrap());
        assert_eq!(store.list().operations[0].state, OperationState::Failed);
        for _ in 0..REMEMBERED + 10 {
            store.begin(OperationKind::Reset, &pool("p"), 1).unwrap().succeeded("done");
        }
        let list = store.list().operations;
        assert_eq!(list.len(), REMEMBERED + 1);
        assert!(list.iter().any(|view| view.id == *kept.id()), "what runs is never forgotten");
        assert!(list.iter().all(|view| view.kind != OperationKind::Stop));
    }
}
