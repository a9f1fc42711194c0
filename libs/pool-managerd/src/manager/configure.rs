//! A configuration that has changed: what of it concerns which pool is decided by [`PoolDiff`]; here it
//! is done, pool by pool, each in its own time. The newest configuration wins, however many come while an
//! older one is still being followed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use wire::config::PoolConfig;
use wire::operation::ReloadRequest;
use wire::pool::ReplicaError;
use wire::{OperationKind, Phase, PoolId, ReplicaId, Wanted};

use super::conduct::{Stand, Watcher, stopped};
use super::reload::Exchanged;
use super::{Inner, Manager, Pool};
use crate::board::ReplicaState;
use crate::changes::{EngineChange, PoolChange, PoolDiff, with_routes_of};
use crate::operations::Operation;
use crate::orders::Commander;
use crate::target::Target;

/// How long generations may go on on an engine that a configuration replaces or ends.
pub(super) const PATIENCE: Duration = Duration::from_millis(ReloadRequest::DEFAULT_DEADLINE_MS);

impl Manager {
    /// Follows another configuration, from now on and in its own time. Says what it comes to.
    pub(crate) fn configure(&self, pools: Vec<Arc<PoolConfig>>) -> Vec<PoolChange> {
        let changes = self.0.compare(&pools);
        let mut concerned: Vec<PoolId> = pools.iter().map(|pool| pool.id.clone()).collect();
        self.0.board.order(&concerned);
        concerned.extend(changes.iter().filter_map(|change| match change {
            PoolChange::Removed(id) => Some(id.clone()),
            PoolChange::Added(_) | PoolChange::Changed(..) => None,
        }));
        self.0.wanted.send_replace(pools);
        for id in concerned {
            let (manager, shutdown) = (self.clone(), self.0.shutdown.clone());
            self.0.tasks.spawn(async move {
                let _cut_short_at_shutdown = shutdown.run_until_cancelled(manager.settle(&id)).await;
            });
        }
        changes
    }

    /// Brings one pool to where the newest configuration wants it.
    async fn settle(&self, id: &PoolId) {
        let turn = self.0.turn(id);
        let _one_at_a_time = turn.lock().await;
        loop {
            match (self.0.pool(id).ok(), self.0.wanted(id)) {
                (None, None) => return,
                (None, Some(config)) => {
                    self.add(&config, &mut HashMap::new());
                    let order: Vec<PoolId> =
                        self.0.wanted.borrow().iter().map(|pool| pool.id.clone()).collect();
                    self.0.board.order(&order);
                    return;
                }
                (Some(pool), None) => {
                    if self.remove(id, &pool).await {
                        return;
                    }
                }
                (Some(pool), Some(config)) => {
                    if let Some(diff) = PoolDiff::of(&pool.configured, &config) {
                        self.change(pool, config, diff).await;
                    }
                    return;
                }
            }
        }
    }

    /// Drains and forgets a pool. `false`: the configuration names it again meanwhile.
    async fn remove(&self, id: &PoolId, pool: &Pool) -> bool {
        let operation = self.0.begin_in_turn(id, pool.commanders.len()).await;
        let ran: Vec<bool> = pool.commanders.iter().map(Commander::is_to_run).collect();
        self.0.board.wanted(id, Wanted::Drained);
        let until = Instant::now() + PATIENCE;
        pool.commanders.iter().for_each(|commander| commander.drain(until));
        let watcher = self.watcher(id);
        tokio::select! {
            biased;
            _all_stopped = watcher.settled(&operation, |_, replica| stopped(replica)) => {}
            () = self.0.is_wanted_again(id) => {
                self.0.board.wanted(id, Wanted::Running);
                for (commander, ran) in pool.commanders.iter().zip(ran) {
                    if ran {
                        commander.run();
                    }
                }
                operation.failed("called off: the configuration names the pool again", None);
                return false;
            }
        }
        pool.commanders.iter().for_each(Commander::dismiss);
        self.0.lock().remove(id);
        self.0.board.remove(id);
        operation.succeeded("stopped and removed: the configuration names it no more");
        true
    }

    async fn change(&self, pool: Pool, config: Arc<PoolConfig>, diff: PoolDiff) {
        let id = &config.id;
        if diff.is_route_only() {
            self.0.reroute(id, &config);
            // What failed may have failed for something that is otherwise now.
            pool.commanders.iter().filter(|commander| commander.is_to_run()).for_each(|commander| {
                commander.run();
            });
            return;
        }
        let (before, after) = diff.replicas;
        let operation = self.0.begin_in_turn(id, pool.commanders.len()).await;
        if after < before {
            self.shrink(id, after, &operation).await;
        }
        let error = match diff.engines {
            EngineChange::Stay => None,
            how => match self.exchange_for(&config, how, &operation).await {
                Ok(error) => error,
                Err((message, error)) => {
                    self.0.reroute(id, &config);
                    self.grow(id, before, after);
                    operation.rolled_back(message, error);
                    return;
                }
            },
        };
        self.0.follows_now(&config);
        self.grow(id, before, after);
        let error = match error {
            Some(error) => Some(error),
            None => self.grown(id, before, &operation).await,
        };
        match error {
            None => operation.succeeded(diff.to_string()),
            Some(error) => {
                let why = crate::pause::first_line(&error.message).to_owned();
                operation.failed(format!("{diff}, but it does not serve: {why}"), Some(error));
            }
        }
    }

    /// Every replica goes over to the new configuration. What served before is the way back; where
    /// nothing did, there is none, and why it does not serve now is returned.
    async fn exchange_for(
        &self,
        config: &Arc<PoolConfig>,
        how: EngineChange,
        operation: &Operation,
    ) -> Result<Option<ReplicaError>, (String, Option<ReplicaError>)> {
        let Ok(pool) = self.0.pool(&config.id) else { return Ok(None) };
        let target = self.0.new_target(Arc::clone(config), PATIENCE, how != EngineChange::Restart);
        let serves = self.0.board.replicas(&config.id, |replica| replica.stands() == Phase::Ready);
        if !serves.contains(&true) {
            return Ok(self.0.take_up(&pool, &target, operation).await);
        }
        match self.0.exchange(&pool, &target, operation).await {
            Exchanged::Done { .. } | Exchanged::CalledOff => Ok(None),
            Exchanged::RolledBack { message, error } | Exchanged::Failed { message, error } => {
                Err((message, error))
            }
        }
    }

    /// Drains the last replicas, and forgets them.
    async fn shrink(&self, id: &PoolId, to: u32, operation: &Operation) {
        let Ok(pool) = self.0.pool(id) else { return };
        let keep = usize::try_from(to).unwrap_or(usize::MAX);
        let until = Instant::now() + PATIENCE;
        let leaving = pool.commanders.get(keep..).unwrap_or_default();
        leaving.iter().for_each(|commander| commander.drain(until));
        let gone =
            |at: usize, replica: &ReplicaState| if at < keep { Stand::Later } else { stopped(replica) };
        let _all_stopped = self.watcher(id).settled(operation, gone).await;
        leaving.iter().for_each(Commander::dismiss);
        if let Some(pool) = self.0.lock().get_mut(id) {
            pool.commanders.truncate(keep);
        }
        self.0.board.resize(id, to);
        operation.replicas(keep);
    }

    /// Starts further replicas; they run if the others do.
    fn grow(&self, id: &PoolId, from: u32, to: u32) {
        let Ok(pool) = self.0.pool(id) else { return };
        if to <= from {
            return;
        }
        self.0.board.resize(id, to);
        let idle = pool.commanders.first().is_some_and(|commander| !commander.is_to_run());
        let new = (from..to).map(ReplicaId::nth);
        let commanders: Vec<Commander> =
            new.filter_map(|replica| self.start_replica(&pool.target, id, replica, idle, None)).collect();
        if let Some(pool) = self.0.lock().get_mut(id) {
            pool.commanders.extend(commanders);
        }
    }

    /// Waits until the replicas from `from` on serve, or says why one does not.
    async fn grown(&self, id: &PoolId, from: u32, operation: &Operation) -> Option<ReplicaError> {
        let pool = self.0.pool(id).ok()?;
        operation.replicas(pool.commanders.len());
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        let serves = |at: usize, replica: &ReplicaState| match replica.stands() {
            _ if at < from => Stand::Done,
            Phase::Ready => Stand::Done,
            Phase::Stopped if pool.commanders.get(at).is_none_or(|c| !c.is_to_run()) => Stand::Done,
            Phase::Failed | Phase::BreakerOpen | Phase::Backoff => Stand::Stuck(replica.last_error.clone()),
            phase => Stand::OnTheWay(phase),
        };
        let stands = self.watcher(id).settled(operation, serves).await?;
        stands.into_iter().find_map(|stand| match stand {
            Stand::Stuck(error) => error,
            Stand::Done | Stand::Later | Stand::OnTheWay(_) => None,
        })
    }
}

impl Inner {
    fn compare(&self, wanted: &[Arc<PoolConfig>]) -> Vec<PoolChange> {
        let pools = self.lock();
        let named = wanted.iter().filter_map(|config| match pools.get(&config.id) {
            None => Some(PoolChange::Added(config.id.clone())),
            Some(pool) => PoolDiff::of(&pool.configured, config)
                .map(|diff| PoolChange::Changed(config.id.clone(), diff)),
        });
        let mut changes: Vec<PoolChange> = named.collect();
        let unnamed = pools.keys().filter(|id| !wanted.iter().any(|config| config.id == **id));
        changes.extend(unnamed.map(|id| PoolChange::Removed(id.clone())));
        changes
    }

    fn wanted(&self, id: &PoolId) -> Option<Arc<PoolConfig>> {
        self.wanted.borrow().iter().find(|config| config.id == *id).map(Arc::clone)
    }

    async fn is_wanted_again(&self, id: &PoolId) {
        let mut wanted = self.wanted.subscribe();
        // The sender cannot go away while we hold it.
        let _seen = wanted.wait_for(|pools| pools.iter().any(|config| config.id == *id)).await;
    }

    async fn begin_in_turn(&self, id: &PoolId, replicas: usize) -> Operation {
        let replicas = u32::try_from(replicas).unwrap_or(u32::MAX);
        self.operations.begin_in_turn(OperationKind::Configure, id, replicas).await
    }

    /// What no engine knows of is as `config` says from now on.
    fn reroute(&self, id: &PoolId, config: &PoolConfig) {
        let mut pools = self.lock();
        let Some(pool) = pools.get_mut(id) else { return };
        let shown = Arc::new(with_routes_of(&pool.target.pool, config));
        pool.target = Arc::new(Target { pool: Arc::clone(&shown), ..(*pool.target).clone() });
        pool.configured = Arc::new(with_routes_of(&pool.configured, config));
        self.board.configured(&shown);
    }

    /// The pool is as `config` says.
    fn follows_now(&self, config: &Arc<PoolConfig>) {
        self.reroute(&config.id, config);
        if let Some(pool) = self.lock().get_mut(&config.id) {
            pool.configured = Arc::clone(config);
        }
    }

    /// All replicas of a pool of which none serves take up another target, whatever comes of it.
    async fn take_up(
        &self,
        pool: &Pool,
        target: &Arc<Target>,
        operation: &Operation,
    ) -> Option<ReplicaError> {
        pool.commanders.iter().for_each(|commander| commander.target(Arc::clone(target)));
        self.took(target);
        let watcher = Watcher::new(Arc::clone(&self.board), target.pool.id.clone());
        let stand = |at: usize, replica: &ReplicaState| match pool.commanders.get(at) {
            Some(commander) => super::reload::follows(replica, target, commander),
            None => Stand::Later,
        };
        let stands = watcher.settled(operation, stand).await?;
        stands.into_iter().find_map(|stand| match stand {
            Stand::Stuck(error) => error,
            Stand::Done | Stand::Later | Stand::OnTheWay(_) => None,
        })
    }
}
