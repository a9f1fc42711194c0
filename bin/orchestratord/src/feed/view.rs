//! What the feed knows of each replica, for the health endpoints.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use wire::{Handoff, PoolId, ReplicaKey};

/// A shared table. Cheap to clone; all clones are one table.
#[derive(Debug, Clone, Default)]
pub(crate) struct FeedView(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    replicas: BTreeMap<ReplicaKey, Seen>,
    /// Why the claim that now stands for a replica could not be used. Apart from what its probes say:
    /// those are of the binding that it has kept, if it had one.
    refused: BTreeMap<ReplicaKey, String>,
}

#[derive(Debug, Clone, Default)]
struct Seen {
    life: u64,
    handoff: Option<Handoff>,
    last_good: Option<Instant>,
    last_error: Option<String>,
}

impl FeedView {
    pub(super) fn up(&self, key: &ReplicaKey, life: u64, handoff: &Handoff) {
        self.change(key, life, |seen| {
            seen.handoff = Some(handoff.clone());
            seen.last_good = Some(Instant::now());
            seen.last_error = None;
        });
    }

    pub(super) fn seen(&self, key: &ReplicaKey, life: u64) {
        self.change(key, life, |seen| {
            seen.last_good = Some(Instant::now());
            seen.last_error = None;
        });
    }

    pub(super) fn failed(&self, key: &ReplicaKey, life: u64, error: String) {
        self.change(key, life, |seen| seen.last_error = Some(error));
    }

    /// A claim could not be used; what was bound before stays.
    pub(super) fn refused(&self, key: &ReplicaKey, reason: String) {
        self.lock().refused.insert(key.clone(), reason);
    }

    /// Another claim took its place, or none.
    pub(super) fn accepted(&self, key: &ReplicaKey) {
        self.lock().refused.remove(key);
    }

    pub(super) fn forget(&self, key: &ReplicaKey, life: u64) {
        let mut table = self.lock();
        if table.replicas.get(key).is_some_and(|seen| seen.life == life) {
            table.replicas.remove(key);
        }
    }

    /// Age of the youngest good probe of a pool.
    pub(crate) fn heartbeat(&self, pool: &PoolId) -> Option<Duration> {
        let table = self.lock();
        let of_pool = table.replicas.iter().filter(|(key, _)| key.pool == *pool);
        of_pool.filter_map(|(_, seen)| seen.last_good).max().map(|at| at.elapsed())
    }

    /// The last probe error of a pool, or else why a claim to be one of its replicas was refused.
    pub(crate) fn last_error(&self, pool: &PoolId) -> Option<String> {
        let table = self.lock();
        let mut of_pool = table.replicas.iter().filter(|(key, _)| key.pool == *pool);
        let mut refused = table.refused.iter().filter(|(key, _)| key.pool == *pool);
        let refused = refused.next().map(|(_, reason)| reason.clone());
        of_pool.find_map(|(_, seen)| seen.last_error.clone()).or(refused)
    }

    /// What a replica that has been up was said to be.
    pub(crate) fn handoff(&self, key: &ReplicaKey) -> Option<Handoff> {
        self.lock().replicas.get(key)?.handoff.clone()
    }

    /// Why a replica's last probe failed, or else why what is claimed of it now was refused; `None` when
    /// neither did.
    pub(crate) fn error_of(&self, key: &ReplicaKey) -> Option<String> {
        let table = self.lock();
        let probed = table.replicas.get(key).and_then(|seen| seen.last_error.clone());
        probed.or_else(|| table.refused.get(key).cloned())
    }

    /// Handoffs of the replicas of a pool that have been up, each with its last probe's error.
    pub(crate) fn handoffs(&self, pool: &PoolId) -> Vec<(Handoff, Option<String>)> {
        let table = self.lock();
        table
            .replicas
            .iter()
            .filter(|(key, _)| key.pool == *pool)
            .filter_map(|(_, seen)| Some((seen.handoff.clone()?, seen.last_error.clone())))
            .collect()
    }

    fn change(&self, key: &ReplicaKey, life: u64, change: impl FnOnce(&mut Seen)) {
        let mut table = self.lock();
        let seen = table.replicas.entry(key.clone()).or_default();
        if seen.life < life {
            *seen = Seen { life, ..Seen::default() };
        }
        if seen.life == life {
            change(seen);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
