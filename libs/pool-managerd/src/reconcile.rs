//! Before any spawn: what did an earlier manager leave behind? Engines that are provably ours and
//! still wanted are kept for adoption; everything else of ours is ended and forgotten. Strangers
//! are never touched.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use child::{AdoptError, Adopted, MemoryKills};
use handoff::HandoffDir;
use wire::ReplicaKey;
use wire::config::PoolConfig;

use crate::engine::Engine;
use crate::engine_log::EngineLog;
use crate::launch::{Life, RUN_DIR_VARIABLE, size};
use crate::record::{Record, RunDir};

/// What was found.
pub(crate) struct Leftovers {
    /// Engines to adopt, by replica.
    pub(crate) survivors: HashMap<ReplicaKey, Life>,
    /// Engines of ours that nobody wants any more.
    unwanted: Vec<Adopted>,
}

impl Leftovers {
    /// Ends what nobody wants.
    pub(crate) async fn end_unwanted(&mut self, grace: Duration) {
        for process in self.unwanted.drain(..) {
            tracing::warn!(
                pid = process.pid(),
                "an engine of an earlier manager that is not wanted any more is stopped"
            );
            if let Err(error) = process.terminate(grace).await {
                tracing::error!(%error, "it cannot be observed to end");
            }
        }
    }
}

/// Looks at every record and every marked process. Blocking.
pub(crate) fn reconcile(
    run: &RunDir,
    handoffs: &HandoffDir,
    pools: &[Arc<PoolConfig>],
) -> io::Result<Leftovers> {
    let mut survivors = HashMap::new();
    for record in run.records()? {
        let (key, generation) = (record.key(), record.generation);
        match adopt(run, record).filter(|_| is_configured(pools, &key)) {
            Some(life) => {
                survivors.insert(key, life);
            }
            None => forget(run, handoffs, &key, generation)?,
        }
    }
    let kept: Vec<u32> = survivors.values().map(|life| life.engine.pid()).collect();
    let mut unwanted = child::processes_with(RUN_DIR_VARIABLE, run.marker());
    unwanted.retain(|process| !kept.contains(&process.pid()));
    let mut ours: BTreeSet<ReplicaKey> = configured(pools).chain(run.replicas()?).collect();
    ours.extend(claimed_by(handoffs, &unwanted)?);
    withdraw_stale(handoffs, ours, &survivors);
    Ok(Leftovers { survivors, unwanted })
}

fn is_configured(pools: &[Arc<PoolConfig>], key: &ReplicaKey) -> bool {
    let in_pool = |pool: &PoolConfig| (0..pool.replicas).any(|n| wire::ReplicaId::nth(n) == key.replica);
    pools.iter().any(|pool| pool.id == key.pool && in_pool(pool))
}

/// The life of a record, if its process lives and is exactly the recorded one.
fn adopt(run: &RunDir, record: Record) -> Option<Life> {
    let key = record.key();
    let identity = record.identity.as_ref()?;
    if identity.spawn_id.as_ref() != Some(&record.spawn_id) {
        return None;
    }
    let engine = match Adopted::open(identity) {
        Ok(adopted) => Engine::Adopted(adopted),
        Err(AdoptError::Gone(pid)) => {
            tracing::info!(replica = %key, pid, "the recorded engine is gone");
            return None;
        }
        Err(error) => {
            tracing::warn!(replica = %key, %error, "the recorded engine is not adopted");
            return None;
        }
    };
    let api_key = std::fs::read_to_string(run.api_key(&key, record.generation)).ok()?;
    let log = EngineLog::existing(run.log(&key), record.log_begin);
    let model_bytes = size(&record.prepared.model_path);
    let memory_kills = MemoryKills::covering(engine.pid());
    let api_key = api_key.trim().to_owned();
    Some(Life { engine, record, api_key, log, model_bytes, memory_kills, claim: None })
}

fn forget(run: &RunDir, handoffs: &HandoffDir, key: &ReplicaKey, generation: u64) -> io::Result<()> {
    handoffs.withdraw(key).map_err(io::Error::other)?;
    run.forget(key, generation)
}

fn configured(pools: &[Arc<PoolConfig>]) -> impl Iterator<Item = ReplicaKey> {
    pools.iter().flat_map(|pool| {
        (0..pool.replicas).map(|n| ReplicaKey { pool: pool.id.clone(), replica: wire::ReplicaId::nth(n) })
    })
}

/// Whose claims name a process that is about to be ended.
fn claimed_by(handoffs: &HandoffDir, processes: &[Adopted]) -> io::Result<Vec<ReplicaKey>> {
    let ends = |pid: u32| processes.iter().any(|process| process.pid() == pid);
    let claims = handoffs.scan()?.claims;
    Ok(claims
        .into_iter()
        .filter(|(_, claim)| claim.handoff.pid.is_some_and(ends))
        .map(|(key, _)| key)
        .collect())
}

/// Claims of our replicas without an engine, also of those that are configured no more. Claims of others
/// (an engine that someone else runs) are none of our business.
fn withdraw_stale(handoffs: &HandoffDir, ours: BTreeSet<ReplicaKey>, survivors: &HashMap<ReplicaKey, Life>) {
    for key in ours.into_iter().filter(|key| !survivors.contains_key(key)) {
        if let Err(error) = handoffs.withdraw(&key) {
            tracing::warn!(replica = %key, %error, "a stale handoff cannot be withdrawn");
        }
    }
}
