//! Reload: every replica of a pool goes over to another target, one after the other. When one cannot,
//! all go back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use provisioners_engine_provisioner::check_pool;
use wire::config::PoolConfig;
use wire::operation::ReloadRequest;
use wire::pool::ReplicaError;
use wire::{OperationId, OperationKind, Phase, PoolId};

use super::conduct::{Stand, Watcher, done};
use super::{Inner, Manager, NotTaken, Pool};
use crate::board::ReplicaState;
use crate::operations::Operation;
use crate::orders::Commander;
use crate::target::Target;

/// How the exchange of a pool's engines ended.
pub(super) enum Exchanged {
    /// All went over. `idle`: none of them is to run.
    Done { idle: bool },
    /// The old ones serve.
    RolledBack { message: String, error: Option<ReplicaError> },
    /// The new ones do not serve, and not all of the old ones do.
    Failed { message: String, error: Option<ReplicaError> },
    /// Another operation took its place.
    CalledOff,
}

impl Manager {
    /// Replaces the engines of a pool.
    pub(crate) fn reload(
        &self,
        id: &PoolId,
        request: &ReloadRequest,
        patience: Duration,
    ) -> Result<OperationId, NotTaken> {
        let before = self.0.pool(id)?;
        let config = self.0.changed(&before.target.pool, request)?;
        let operation = self.0.begin_reload(id, &before)?;
        let target = self.0.new_target(Arc::new(config), patience, true);
        let inner = Arc::clone(&self.0);
        Ok(self.conduct(operation, |operation| inner.conduct_reload(before, target, operation)))
    }
}

impl Inner {
    pub(super) fn begin_reload(&self, id: &PoolId, pool: &Pool) -> Result<Operation, NotTaken> {
        let replicas = u32::try_from(pool.commanders.len()).unwrap_or(u32::MAX);
        Ok(self.operations.begin(OperationKind::Reload, id, replicas)?)
    }

    pub(super) fn new_target(&self, pool: Arc<PoolConfig>, patience: Duration, beside: bool) -> Arc<Target> {
        let number = self.next_target.fetch_add(1, Ordering::Relaxed);
        Arc::new(Target { number, pool, patience, beside })
    }

    /// The configuration that a request asks for. What a caller may name is in the stores or fetched by
    /// name; never a path of this machine.
    fn changed(&self, before: &PoolConfig, request: &ReloadRequest) -> Result<PoolConfig, NotTaken> {
        let mut pool = before.clone();
        if let Some(model) = request.model.as_ref().filter(|model| **model != before.model) {
            if !(model.starts_with("builtin:") || model.starts_with("hf:")) {
                let problem = "model must be builtin:… or hf:…; other models are named in the configuration";
                return Err(NotTaken::Invalid { param: "model", problem: problem.to_owned() });
            }
            model.clone_into(&mut pool.model);
            pool.model_sha256 = None;
        }
        if let Some(digest) = &request.engine_ref {
            pool.provisioning.sources = self.of_the_store("engine_ref", digest)?;
        }
        let param = if request.model.is_some() { "model" } else { "engine_ref" };
        check_pool(&pool).map_err(|error| NotTaken::Invalid { param, problem: error.to_string() })?;
        if pool.model != before.model {
            let untrusted = |problem| NotTaken::Untrusted { model: pool.model.clone(), problem };
            self.shared.preparer.trusts(&pool.model).map_err(untrusted)?;
        }
        Ok(pool)
    }

    async fn conduct_reload(self: Arc<Self>, before: Pool, target: Arc<Target>, operation: Operation) {
        match self.exchange(&before, &target, &operation).await {
            Exchanged::Done { idle: true } => {
                operation.succeeded("the pool is stopped; it will run this when it is started");
            }
            Exchanged::Done { idle: false } => operation.succeeded("serving"),
            Exchanged::RolledBack { message, error } => operation.rolled_back(message, error),
            Exchanged::Failed { message, error } => operation.failed(message, error),
            Exchanged::CalledOff => {}
        }
    }

    /// Every replica goes over to another target, one after the other, or all back.
    pub(super) async fn exchange(
        &self,
        before: &Pool,
        target: &Arc<Target>,
        operation: &Operation,
    ) -> Exchanged {
        let watcher = Watcher::new(Arc::clone(&self.board), target.pool.id.clone());
        for (number, commander) in before.commanders.iter().enumerate() {
            if !self.unless_called_off(operation, |_| commander.target(Arc::clone(target))) {
                return Exchanged::CalledOff;
            }
            let moved = |at: usize, replica: &ReplicaState| {
                if at > number { Stand::Later } else { follows(replica, target, commander) }
            };
            let Some(stands) = watcher.settled(operation, moved).await else { return Exchanged::CalledOff };
            let stuck = stands.into_iter().find_map(|stand| match stand {
                Stand::Stuck(error) => Some(error),
                _ => None,
            });
            if let Some(error) = stuck {
                return self.roll_back(&watcher, before, operation, error).await;
            }
        }
        if !self.unless_called_off(operation, |pools| self.took_by(pools, target)) {
            return Exchanged::CalledOff;
        }
        Exchanged::Done { idle: before.commanders.iter().all(|commander| !commander.is_to_run()) }
    }

    /// The pool is another target's.
    pub(super) fn took(&self, target: &Arc<Target>) {
        self.took_by(&mut self.lock(), target);
    }

    pub(super) fn took_by(&self, pools: &mut BTreeMap<PoolId, Pool>, target: &Arc<Target>) {
        self.board.configured(&target.pool);
        if let Some(pool) = pools.get_mut(&target.pool.id) {
            pool.target = Arc::clone(target);
        }
    }

    /// Does it, unless another operation has taken this one's place; the orders of one that does come behind it.
    pub(super) fn unless_called_off(
        &self,
        operation: &Operation,
        what: impl FnOnce(&mut BTreeMap<PoolId, Pool>),
    ) -> bool {
        let mut pools = self.lock();
        let goes_on = !operation.is_called_off();
        if goes_on {
            what(&mut pools);
        }
        goes_on
    }

    /// What an exchange that was called off has half done is undone: all replicas are to run what the pool ran
    /// last, when they run again.
    pub(super) fn settle_targets(pools: &BTreeMap<PoolId, Pool>, pool: &PoolId) {
        if let Some(pool) = pools.get(pool) {
            pool.commanders.iter().for_each(|commander| commander.target(Arc::clone(&pool.target)));
        }
    }

    async fn roll_back(
        &self,
        watcher: &Watcher,
        before: &Pool,
        operation: &Operation,
        error: Option<ReplicaError>,
    ) -> Exchanged {
        let all_back = |_: &mut BTreeMap<PoolId, Pool>| {
            before.commanders.iter().for_each(|commander| commander.target(Arc::clone(&before.target)));
        };
        if !self.unless_called_off(operation, all_back) {
            return Exchanged::CalledOff;
        }
        let back = |at: usize, replica: &ReplicaState| match before.commanders.get(at) {
            Some(commander) => follows(replica, &before.target, commander),
            None => Stand::Later,
        };
        let Some(stands) = watcher.settled(operation, back).await else { return Exchanged::CalledOff };
        let (total, serving) = (stands.len(), done(&stands));
        let why = error.as_ref().map_or("it does not serve", |error| error.message.as_str());
        let why = crate::pause::first_line(why);
        if usize::try_from(serving).is_ok_and(|serving| serving == total) {
            let message = format!("the new engine was not taken: {why}; the old one serves");
            Exchanged::RolledBack { message, error }
        } else {
            let message =
                format!("the new engine was not taken: {why}; of the old ones {serving} of {total} serve");
            Exchanged::Failed { message, error }
        }
    }
}

/// Whether a replica runs a target.
pub(super) fn follows(replica: &ReplicaState, target: &Target, commander: &Commander) -> Stand {
    if let Some((number, error)) = &replica.refused
        && *number == target.number
    {
        return Stand::Stuck(Some(error.clone()));
    }
    let phase = replica.stands();
    let ours = replica.target == target.number;
    match phase {
        // It takes up its target when it is started.
        Phase::Stopped if !commander.is_to_run() => Stand::Done,
        Phase::Ready if ours => Stand::Done,
        Phase::Failed | Phase::BreakerOpen | Phase::Backoff if ours => {
            Stand::Stuck(replica.last_error.clone())
        }
        phase => Stand::OnTheWay(phase),
    }
}
