//! Preload: a pool is to run, with what it ran last or with an engine and a model of the stores. What a
//! caller names is a digest of something that is here, never a path, a flag or a variable.

use std::sync::Arc;

use provisioners_engine_provisioner::check_pool;
use wire::config::{EngineSource, PathSource, PoolConfig};
use wire::operation::PreloadRequest;
use wire::{Phase, PoolId, PoolView, Wanted};

use super::configure::PATIENCE;
use super::{Inner, Manager, NotTaken};

impl Manager {
    /// Asks a pool to run: what failed or was stopped tries again, what runs goes on. Looks into the
    /// stores, so call it where blocking is allowed.
    pub(crate) fn preload(&self, id: &PoolId, request: &PreloadRequest) -> Result<PoolView, NotTaken> {
        let inner = &self.0;
        let pool = inner.pool(id)?;
        let named = inner.named(&pool.target.pool, request)?;
        // An operation that begins now gives its orders behind these.
        let mut pools = inner.lock();
        if let Some(busy) = inner.operations.running(id) {
            return Err(busy.into());
        }
        if named != *pool.target.pool {
            let serving = |phase| matches!(phase, Phase::Ready | Phase::Draining);
            if inner.board.replicas(id, |replica| serving(replica.stands())).contains(&true) {
                return Err(NotTaken::Serves(id.clone()));
            }
            let target = inner.new_target(Arc::new(named), PATIENCE, true);
            pool.commanders.iter().for_each(|commander| commander.target(Arc::clone(&target)));
            inner.took_by(&mut pools, &target);
        }
        inner.board.wanted(id, Wanted::Running);
        for commander in &pool.commanders {
            let _whoever_follows_it = commander.run();
        }
        drop(pools);
        inner.board.view(id).ok_or_else(|| NotTaken::Unknown(id.clone()))
    }
}

impl Inner {
    /// The configuration with what a request names in the place of what it says itself.
    fn named(&self, before: &PoolConfig, request: &PreloadRequest) -> Result<PoolConfig, NotTaken> {
        let mut pool = before.clone();
        if let Some(digest) = &request.engine_digest {
            pool.provisioning.sources = self.of_the_store("engine_digest", digest)?;
        }
        if let Some(digest) = &request.model_digest {
            let invalid = |problem| NotTaken::Invalid { param: "model_digest", problem };
            let catalog = self.shared.preparer.catalog();
            let catalog = catalog.ok_or_else(|| invalid("this pool-managerd has no catalog".to_owned()))?;
            let model = catalog.find(digest).map_err(|error| invalid(error.to_string()))?;
            // Where it came from leads to it, and its digest to nothing else.
            (pool.model, pool.model_sha256) = (model.source, Some(model.digest));
        }
        let param = if request.model_digest.is_some() { "model_digest" } else { "engine_digest" };
        check_pool(&pool).map_err(|error| NotTaken::Invalid { param, problem: error.to_string() })?;
        Ok(pool)
    }

    /// An engine of the store as the only source of a pool's.
    pub(super) fn of_the_store(
        &self,
        param: &'static str,
        digest: &str,
    ) -> Result<Vec<EngineSource>, NotTaken> {
        let binary = self.shared.preparer.engine(digest).ok_or_else(|| NotTaken::Invalid {
            param,
            problem: format!(
                "{param} names no engine of the store; `engine-provisioner list` shows their digests"
            ),
        })?;
        Ok(vec![EngineSource::Path(PathSource { binary })])
    }
}
