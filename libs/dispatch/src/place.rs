//! Where a task runs: a pure function of the registry's snapshot and the task's wish. It takes no
//! slot; leasing the one it chose may still fail, and then it is asked again.

use std::fmt;

use registry::{Replica, Snapshot};
use wire::task::{Placement, PlacementMode};
use wire::{PoolId, ReplicaId, ReplicaKey};

use crate::Home;
use crate::pace::{Best, Free, a_token, best};

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
        return Decision { chosen: None, words: why_not(snapshot, wish), outcome: PlacementOutcome::Waits };
    };
    let outcome = match &wish.replica {
        Some((Insist::Pin, _)) => PlacementOutcome::Pinned,
        Some((Insist::Prefer, name)) if *name == key.replica => PlacementOutcome::Preferred,
        _ if holds.is_some() => PlacementOutcome::HoldsPrefix,
        _ if best.is_some_and(|best| best.by_pace) => PlacementOutcome::LeastEnd,
        _ => PlacementOutcome::MostFree,
    };
    let others = Others { snapshot, wish, chosen: key, usable: &usable, number: all.saturating_sub(1) };
    let words = Why { key, replica, outcome, home, best, feasible: feasible.len(), others }.to_string();
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

/// Replicas that a decision names besides the one it chose.
const NAMED: usize = 4;

struct Why<'a, U> {
    key: &'a ReplicaKey,
    replica: &'a Replica,
    outcome: PlacementOutcome,
    /// Of whoever has the outcome [`PlacementOutcome::HoldsPrefix`], the one that was chosen.
    home: Option<&'a Home>,
    best: Option<Best<'a>>,
    feasible: usize,
    others: Others<'a, U>,
}

/// What became of the replicas that were not chosen.
struct Others<'a, U> {
    snapshot: &'a Snapshot,
    wish: &'a Wish,
    chosen: &'a ReplicaKey,
    usable: &'a U,
    /// How many they are.
    number: usize,
}

impl<U: Fn(&ReplicaKey, u64) -> bool> fmt::Display for Others<'_, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let others = self.snapshot.pool(&self.wish.pool).filter(|(key, _)| *key != self.chosen);
        for (key, replica) in others.take(NAMED) {
            write!(f, "; {key}: ")?;
            match () {
                () if !replica.ready => match &replica.last_down_reason {
                    Some(reason) => write!(f, "down ({reason})")?,
                    None => f.write_str("down")?,
                },
                () if replica.draining => f.write_str("draining")?,
                () if !self.wish.allows(&key.replica) => f.write_str("not where it is pinned")?,
                () if replica.slots_free == 0 => f.write_str("no free slot")?,
                () if !(self.usable)(key, replica.generation) => f.write_str("did not answer just now")?,
                () => {
                    write!(f, "{} of {} slots free", replica.slots_free, replica.slots_total)?;
                    replica.hints.per_token.map_or(Ok(()), |pace| write!(f, ", {}", a_token(pace)))?;
                }
            }
        }
        match self.number.saturating_sub(NAMED) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

impl<U: Fn(&ReplicaKey, u64) -> bool> fmt::Display for Why<'_, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, replica, outcome, home, best, feasible, others } = self;
        match outcome {
            PlacementOutcome::Pinned => write!(f, "{key}: pinned there")?,
            PlacementOutcome::HoldsPrefix => {
                let tokens = home.map_or(0, |home| home.tokens);
                write!(f, "{key}: holds {tokens} tokens of the session")?;
            }
            PlacementOutcome::Preferred => write!(f, "{key}: preferred and free")?,
            PlacementOutcome::LeastEnd => {
                let equals = best.map_or(0, |best| best.equals);
                match replica.hints.per_token {
                    Some(pace) => write!(f, "{key}: least predicted end, {},", a_token(pace))?,
                    None => write!(f, "{key}: not measured yet, so it is tried,")?,
                }
                write!(f, " of {equals} replicas with as many free slots")?;
            }
            PlacementOutcome::MostFree | PlacementOutcome::Waits if *feasible == 1 => {
                write!(f, "{key}: the only replica with a free slot")?;
            }
            PlacementOutcome::MostFree | PlacementOutcome::Waits => {
                write!(f, "{key}: most free slots of {feasible} replicas")?;
            }
        }
        write!(f, " ({} of {} slots free){others}", replica.slots_free, replica.slots_total)
    }
}

fn why_not(snapshot: &Snapshot, wish: &Wish) -> String {
    let pool = &wish.pool;
    let allowed: Vec<_> = snapshot.pool(pool).filter(|(key, _)| wish.allows(&key.replica)).collect();
    let whom = match &wish.replica {
        Some((Insist::Pin, name)) => format!("{pool}/{name}, where it is pinned,"),
        _ => format!("pool {pool}"),
    };
    let ready = allowed.iter().filter(|(_, replica)| replica.ready).count();
    let open = allowed.iter().filter(|(_, replica)| replica.ready && !replica.draining).count();
    let free = allowed.iter().any(|(_, replica)| replica.takes_work());
    if ready == 0 {
        format!("waits: {whom} has no ready engine")
    } else if open == 0 {
        format!("waits: {whom} is draining")
    } else if free {
        format!("waits: {whom} did not answer just now and is left alone for a moment")
    } else {
        format!("waits: {whom} has no free slot")
    }
}

#[cfg(test)]
mod tests;
