//! What every handler may use.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use adapter_host::AdapterHost;
use dispatch::Dispatch;
use registry::Registry;
use task_log::Artifacts;
use tokio_util::sync::CancellationToken;
use wire::config::{PoolConfig, PoolKind};
use wire::{ConfigView, PoolId, PoolView};

use super::extract::BodyLimits;
use super::guard::Guard;
use super::trace::Traces;
use crate::feed::{FeedView, Workers};
use crate::metrics::EdgeMetrics;
use crate::pool_manager::{Link, PoolViews};

/// Shared by all handlers. It is cloned several times for each request: one count, however much it holds.
#[derive(Clone)]
pub struct AppState(Arc<Parts>);

/// What an [`AppState`] is made of.
pub struct Parts {
    pub(crate) dispatch: Dispatch,
    pub(crate) registry: Registry,
    pub(crate) host: AdapterHost,
    pub(crate) feed: FeedView,
    /// Engines that others registered.
    pub(crate) workers: Workers,
    pub(crate) pools: PoolViews,
    pub(crate) artifacts: Artifacts,
    pub(crate) link: Link,
    pub(crate) guard: Guard,
    pub(crate) traces: Traces,
    pub(crate) metrics: EdgeMetrics,
    pub(crate) exposition: Arc<prometheus_client::registry::Registry>,
    /// Set first on shutdown, so that readiness answers no before anything closes.
    pub(crate) stopping: CancellationToken,
    /// When this daemon started, for `created` fields.
    pub(crate) started: StartTime,
    /// When usage began to be counted, in seconds since the epoch.
    pub(crate) counting_since: u64,
    pub(crate) bodies: Arc<BodyLimits>,
    /// What each configured pool is for.
    pub(crate) kinds: Kinds,
    pub(crate) configuration: Configuration,
}

/// The configuration file and how far it is followed. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Configuration(Arc<RwLock<Option<ConfigView>>>);

impl Configuration {
    pub(crate) fn show(&self, view: &ConfigView) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(view.clone());
    }

    /// `None`: there is no file.
    pub(crate) fn view(&self) -> Option<ConfigView> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What each configured pool is for, as the configuration says now. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kinds(Arc<RwLock<BTreeMap<PoolId, PoolKind>>>);

impl Kinds {
    pub(crate) fn of(pools: &[PoolConfig]) -> Self {
        let kinds = Self::default();
        kinds.set(pools);
        kinds
    }

    pub(crate) fn set(&self, pools: &[PoolConfig]) {
        let kinds = pools.iter().map(|pool| (pool.id.clone(), pool.kind)).collect();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = kinds;
    }

    pub(crate) fn get(&self, pool: &PoolId) -> Option<PoolKind> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(pool).copied()
    }
}

/// When the daemon started.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StartTime {
    pub(crate) unix_seconds: u64,
}

impl StartTime {
    pub(crate) fn now() -> Self {
        Self { unix_seconds: unix_seconds() }
    }
}

/// Seconds since the epoch.
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

impl From<Parts> for AppState {
    fn from(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }
}

impl Deref for AppState {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl AppState {
    /// Whether a replica of the pool takes work now.
    pub(crate) fn is_ready(&self, pool: &PoolId) -> bool {
        let snapshot = self.registry.snapshot();
        snapshot.pool(pool).any(|(_, replica)| replica.ready && !replica.draining)
    }

    /// pool-managerd's view of a pool, with the slots that the registry knows to be free.
    pub(crate) fn pool(&self, id: &PoolId) -> Option<PoolView> {
        self.pools().into_iter().find(|pool| pool.id == *id)
    }

    /// All pools: those of pool-managerd, then those whose engines are all someone else's.
    pub(crate) fn pools(&self) -> Vec<PoolView> {
        let mut views = self.pools.current().as_ref().clone();
        let snapshot = self.registry.snapshot();
        for id in self.dispatch.pool_ids() {
            if !views.iter().any(|view| view.id == id) {
                views.push(super::pools::unmanaged(&id));
            }
        }
        for view in &mut views {
            super::pools::add_others(view, &self.feed, &snapshot);
            for replica in &mut view.replicas {
                let key = wire::ReplicaKey { pool: view.id.clone(), replica: replica.id.clone() };
                if let Some(known) = snapshot.replicas.get(&key) {
                    replica.slots_total = known.slots_total;
                    replica.slots_free = Some(known.slots_free);
                    replica.hints = super::pools::hints(known).or(replica.hints);
                }
            }
        }
        views
    }
}
