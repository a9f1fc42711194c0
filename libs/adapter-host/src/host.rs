//! Which adapter is bound to which replica now.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use wire::ReplicaKey;

use crate::WorkerAdapter;

/// An adapter and the life of the replica it speaks to.
#[derive(Clone)]
pub struct Binding {
    /// The generation of the handoff it was bound from.
    pub generation: u64,
    /// The adapter.
    pub adapter: Arc<dyn WorkerAdapter>,
}

impl fmt::Debug for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Binding").field("generation", &self.generation).finish_non_exhaustive()
    }
}

/// The bindings. Cheap to clone; all clones are one host.
#[derive(Debug, Clone, Default)]
pub struct AdapterHost {
    bindings: Arc<RwLock<HashMap<ReplicaKey, Binding>>>,
}

impl AdapterHost {
    /// Binds an adapter, replacing the one before.
    pub fn bind(&self, key: ReplicaKey, binding: Binding) {
        self.bindings.write().unwrap_or_else(PoisonError::into_inner).insert(key, binding);
    }

    /// Unbinds one life of a replica, never a later one; running generations keep their adapter
    /// until they end.
    pub fn unbind(&self, key: &ReplicaKey, generation: u64) {
        let mut bindings = self.bindings.write().unwrap_or_else(PoisonError::into_inner);
        if bindings.get(key).is_some_and(|binding| binding.generation == generation) {
            bindings.remove(key);
        }
    }

    /// The adapter of exactly this life of the replica.
    #[must_use]
    pub fn get(&self, key: &ReplicaKey, generation: u64) -> Option<Arc<dyn WorkerAdapter>> {
        let bindings = self.bindings.read().unwrap_or_else(PoisonError::into_inner);
        let binding = bindings.get(key)?;
        (binding.generation == generation).then(|| Arc::clone(&binding.adapter))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::{PoolId, ReplicaId, TraceContext};

    use crate::{BoxFuture, ChatRequest, EngineRequest, ProbeError, Probed, SubmitError, TokenStream};

    struct Deaf;
    impl WorkerAdapter for Deaf {
        fn submit(
            &self,
            _: EngineRequest,
            _: Option<TraceContext>,
        ) -> BoxFuture<'_, Result<TokenStream, SubmitError>> {
            Box::pin(async { Err(SubmitError::Lost("deaf".to_owned())) })
        }
        fn probe(&self) -> BoxFuture<'_, Result<Probed, ProbeError>> {
            Box::pin(async { Err(ProbeError::Loading) })
        }
        fn count_tokens<'a>(
            &'a self,
            _: &'a str,
            _: Option<&'a TraceContext>,
        ) -> BoxFuture<'a, Result<u64, SubmitError>> {
            Box::pin(async { Ok(0) })
        }
        fn count_chat<'a>(
            &'a self,
            _: &'a ChatRequest,
            _: Option<&'a TraceContext>,
        ) -> BoxFuture<'a, Result<u64, SubmitError>> {
            Box::pin(async { Ok(0) })
        }
    }

    #[test]
    fn a_task_placed_on_an_earlier_life_never_reaches_the_next() {
        let host = AdapterHost::default();
        let key = ReplicaKey { pool: PoolId::try_new("p").unwrap(), replica: ReplicaId::nth(0) };
        host.bind(key.clone(), Binding { generation: 1, adapter: Arc::new(Deaf) });
        assert!(host.get(&key, 1).is_some());
        host.bind(key.clone(), Binding { generation: 2, adapter: Arc::new(Deaf) });
        assert!(host.get(&key, 1).is_none());
        assert!(host.get(&key, 2).is_some());
        host.unbind(&key, 1);
        assert!(host.get(&key, 2).is_some(), "the end of the first life must not unbind the second");
        host.unbind(&key, 2);
        assert!(host.get(&key, 2).is_none());
    }
}
