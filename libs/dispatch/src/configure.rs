//! A changed configuration: which pools there are, by which names, and how long their queues are. What
//! waits keeps its place, also in a pool that is named no more: it goes on if the pool comes back.

use std::collections::BTreeSet;
use std::sync::PoisonError;

use wire::PoolId;

use crate::dispatcher::Shared;
use crate::{Dispatch, PoolSpec};

impl Dispatch {
    /// The pools that the configuration names from now on. Those that only handoffs speak of stay.
    pub fn configure(&self, pools: Vec<PoolSpec>) {
        let shared = &self.shared;
        let named: BTreeSet<PoolId> = pools.iter().map(|pool| pool.id.clone()).collect();
        let before = {
            let mut configured = shared.configured.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *configured, named.clone())
        };
        let aliases =
            before.iter().filter_map(|id| shared.pool(id)).flat_map(|pool| pool.spec().aliases.clone());
        let dropped: Vec<String> = aliases.collect();
        let gone: Vec<PoolId> = before.difference(&named).cloned().collect();
        // Names go first: nothing is admitted any more to what is about to go.
        let mut names = shared.names.write().unwrap_or_else(PoisonError::into_inner);
        names.configure(&pools, &dropped, &gone);
        for spec in pools {
            match shared.pool(&spec.id) {
                Some(pool) => pool.configure(spec),
                None => shared.add_pool(spec),
            }
        }
        drop(names);
        for pool in gone.iter().filter_map(|id| shared.pool(id)) {
            pool.is_gone();
            if pool.depth() > 0 {
                tracing::warn!(pool = %pool.id, waiting = pool.depth(), "the configuration names the pool no more; its tasks wait for it to come back");
            }
        }
        shared.let_go_of_pools();
    }
}

impl Shared {
    /// Forgets pools that are named no more and have nothing left.
    pub(crate) fn let_go_of_pools(&self) {
        let mut pools = self.pools.write().unwrap_or_else(PoisonError::into_inner);
        pools.retain(|_, pool| {
            let ended = pool.has_ended();
            if ended {
                pool.over.cancel();
            }
            !ended
        });
    }
}
