//! Where a task runs: a pure function of the registry's snapshot and the task's wish. It takes no
//! slot; leasing the one it chose may still fail, and then it is asked again.

use registry::{Replica, Snapshot};
use wire::task::{Placement, PlacementMode};
use wire::{PoolId, ReplicaId, ReplicaKey};

use crate::Home;
use crate::pace::{Free, best};

use words::{Others, Why, why_wait};

mod words;

/// Where a task wants to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// The pool its model resolved to.
    pub pool: PoolId,
    /// The replica it names, and how much it means it.
    pub replica: Option<(Insist, ReplicaId)>,
}

/// How much a task means its replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Insist {
    /// There if it is free, else anywhere.
    Prefer,
    /// There or nowhere.
    Pin,
}

/// A placement that cannot be honoured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPlacement {
    /// It names a pool that does not serve the model.
    #[error("placement.pool_id is {named}, but the model is served by pool {serving}")]
    OtherPool {
        /// The pool it names.
        named: PoolId,
        /// The pool the model resolved to.
        serving: PoolId,
    },
    /// It pins the task to nothing.
    #[error("placement.mode pin needs a replica_id or a pool_id")]
    PinToNothing,
    /// It names a replica without saying how binding that is.
    #[error("placement.replica_id means nothing with mode auto; use prefer or pin")]
    ReplicaWithAuto,
}

/// What was decided and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The replica and the life of it; `None` when none is feasible now.
    pub chosen: Option<(ReplicaKey, u64)>,
    /// Why, for people.
    pub words: String,
    /// The same for the metric's label.
    pub outcome: PlacementOutcome,
}

/// Ways a decision can go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PlacementOutcome {
    /// The feasible replica with the most free slots.
    MostFree,
    /// Of several with the most free slots the one that is through first.
    LeastEnd,
    /// The replica that the task preferred.
    Preferred,
    /// The replica that holds the prompt of its session.
    HoldsPrefix,
    /// The replica that the task is pinned to.
    Pinned,
    /// Nowhere now.
    Waits,
}

impl PlacementOutcome {
    /// The label's value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MostFree => "most_free",
            Self::LeastEnd => "least_end",
            Self::Preferred => "preferred",
            Self::HoldsPrefix => "holds_prefix",
            Self::Pinned => "pinned",
            Self::Waits => "waits",
        }
    }
}

impl Wish {
    /// The wish of a task whose model is served by `pool`.
    pub fn new(pool: &PoolId, placement: Option<&Placement>) -> Result<Self, InvalidPlacement> {
        let Some(placement) = placement else { return Ok(Self { pool: pool.clone(), replica: None }) };
        if let Some(named) = placement.pool_id.as_ref().filter(|named| *named != pool) {
            return Err(InvalidPlacement::OtherPool { named: named.clone(), serving: pool.clone() });
        }
        let replica = match (placement.mode, placement.replica_id.clone()) {
            (PlacementMode::Auto, Some(_)) => return Err(InvalidPlacement::ReplicaWithAuto),
            (PlacementMode::Pin, None) if placement.pool_id.is_none() => {
                return Err(InvalidPlacement::PinToNothing);
            }
            (_, None) => None,
            (PlacementMode::Prefer, Some(replica)) => Some((Insist::Prefer, replica)),
            (PlacementMode::Pin, Some(replica)) => Some((Insist::Pin, replica)),
        };
        Ok(Self { pool: pool.clone(), replica })
    }
}

/// How much busier than the others a replica may be, in parts of its slots, to be chosen for what it
/// holds.
const LOAD_CAP: f64 = 0.25;

/// Decides: feasible first (of the pool, ready, not draining, a free slot, the pin, `usable`), then
/// the preferred replica, then the one that holds the session's prompt unless it is much busier than
/// the others, then the most free slots, then the least predicted end, then the lowest key. `usable`
/// lets the caller rule out lives it has just had trouble with.
#[must_use]
pub fn place(
    snapshot: &Snapshot,
    wish: &Wish,
    home: Option<&Home>,
    usable: impl Fn(&ReplicaKey, u64) -> bool,
) -> Decision {
    let (mut all, mut feasible) = (0_usize, Vec::new());
    for (key, replica) in snapshot.pool(&wish.pool) {
        all += 1;
        if replica.takes_work() && wish.allows(&key.replica) && usable(key, replica.generation) {
            feasible.push(Free::new(key, replica));
        }
    }
    let preferred = wish.replica.as_ref().and_then(|(_, name)| find(&feasible, name));
    let holds = home.and_then(|home| holder(home, &feasible));
    let best = best(&feasible);
    let Some(&Free { key, replica, .. }) = preferred.or(holds).or(best.as_ref().map(|best| &best.chosen))
    else {
        return Decision { chosen: None, words: why_wait(snapshot, wish), outcome: PlacementOutcome::Waits };
    };
    let outcome = match &wish.replica {
        Some((Insist::Pin, _)) => PlacementOutcome::Pinned,
        Some((Insist::Prefer, name)) if *name == key.replica => PlacementOutcome::Preferred,
        _ if holds.is_some() => PlacementOutcome::HoldsPrefix,
        _ if best.is_some_and(|best| best.by_pace) => PlacementOutcome::LeastEnd,
        _ => PlacementOutcome::MostFree,
    };
    let number = all.saturating_sub(1);
    let others = Others { snapshot, wish, home, chosen: key, usable: &usable, number };
    let words = Why { key, replica, outcome, best, feasible: feasible.len(), others }.to_string();
    Decision { chosen: Some((key.clone(), replica.generation)), words, outcome }
}

/// Replicas of one pool as the snapshot has them are in the order of their names.
fn find<'a, 'b>(feasible: &'b [Free<'a>], name: &ReplicaId) -> Option<&'b Free<'a>> {
    feasible.binary_search_by(|free| free.key.replica.cmp(name)).ok().map(|at| &feasible[at])
}

/// The feasible replica that holds a session's prompt, unless it is much busier than they are.
fn holder<'a, 'b>(home: &Home, feasible: &'b [Free<'a>]) -> Option<&'b Free<'a>> {
    let busy =
        |replica: &Replica| 1.0 - f64::from(replica.slots_free) / f64::from(replica.slots_total.max(1));
    let found = find(feasible, &home.key.replica)
        .filter(|free| *free.key == home.key && free.replica.generation == home.generation)?;
    let mean = feasible.iter().map(|free| busy(free.replica)).sum::<f64>() / feasible.len() as f64;
    (busy(found.replica) <= mean + LOAD_CAP).then_some(found)
}

impl Wish {
    fn allows(&self, replica: &ReplicaId) -> bool {
        !matches!(&self.replica, Some((Insist::Pin, name)) if name != replica)
    }
}

#[cfg(test)]
mod tests;
