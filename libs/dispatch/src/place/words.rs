//! A decision in words: why the replica that was chosen, and why not the others. The ones that the task
//! or its session would rather have had are named first.

use std::fmt;

use registry::{Replica, Snapshot};
use wire::{ReplicaId, ReplicaKey};

use super::{Insist, PlacementOutcome, Wish};
use crate::Home;
use crate::pace::{Best, a_token};

/// Replicas that a decision names besides the one it chose.
const NAMED: usize = 4;

pub(super) struct Why<'a, U> {
    pub(super) key: &'a ReplicaKey,
    pub(super) replica: &'a Replica,
    pub(super) outcome: PlacementOutcome,
    pub(super) best: Option<Best<'a>>,
    pub(super) feasible: usize,
    pub(super) others: Others<'a, U>,
}

/// What became of the replicas that were not chosen.
pub(super) struct Others<'a, U> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) wish: &'a Wish,
    pub(super) home: Option<&'a Home>,
    pub(super) chosen: &'a ReplicaKey,
    pub(super) usable: &'a U,
    /// How many they are.
    pub(super) number: usize,
}

impl<U: Fn(&ReplicaKey, u64) -> bool> fmt::Display for Why<'_, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, replica, outcome, best, feasible, others } = self;
        match outcome {
            PlacementOutcome::Pinned => write!(f, "{key}: pinned there")?,
            PlacementOutcome::HoldsPrefix => {
                // Of whoever has this outcome it is the one that was chosen.
                let tokens = others.home.map_or(0, |home| home.tokens);
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
        write!(f, " ({} of {} slots free)", replica.slots_free, replica.slots_total)?;
        others.tell(f, *outcome)
    }
}

impl<'a, U: Fn(&ReplicaKey, u64) -> bool> Others<'a, U> {
    fn tell(&self, f: &mut fmt::Formatter<'_>, outcome: PlacementOutcome) -> fmt::Result {
        let rather = self.rather();
        let known = |name: &ReplicaId| {
            let key = ReplicaKey { pool: self.wish.pool.clone(), replica: name.clone() };
            self.snapshot.replicas.get_key_value(&key)
        };
        if let Some(name) = self.preferred().filter(|name| known(name).is_none()) {
            write!(f, "; {}/{name}: preferred, but there is none of that name", self.wish.pool)?;
        }
        let first = rather.iter().filter_map(|name| known(name));
        let is_rest = |key: &ReplicaKey| key != self.chosen && !rather.contains(&&key.replica);
        let rest = self.snapshot.pool(&self.wish.pool).filter(|(key, _)| is_rest(key));
        for (key, replica) in first.chain(rest).take(NAMED) {
            write!(f, "; {key}: ")?;
            self.why_not(f, key, replica, outcome)?;
        }
        match self.number.saturating_sub(NAMED) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }

    fn why_not(
        &self,
        f: &mut fmt::Formatter<'_>,
        key: &ReplicaKey,
        replica: &Replica,
        outcome: PlacementOutcome,
    ) -> fmt::Result {
        let held = self.home.filter(|home| home.key == *key && home.generation == replica.generation);
        match (self.preferred() == Some(&key.replica), held.map(|home| home.tokens)) {
            (true, Some(tokens)) => write!(f, "preferred, holds {tokens} tokens of the session, but ")?,
            (true, None) => f.write_str("preferred, but ")?,
            (false, Some(tokens)) => write!(f, "holds {tokens} tokens of the session, but ")?,
            (false, None) => {}
        }
        match () {
            () if !replica.ready => match &replica.last_down_reason {
                Some(reason) => write!(f, "down ({reason})"),
                None => f.write_str("down"),
            },
            () if replica.draining => f.write_str("draining"),
            () if !self.wish.allows(&key.replica) => f.write_str("not where it is pinned"),
            () if replica.slots_free == 0 => f.write_str("no free slot"),
            () if !(self.usable)(key, replica.generation) => f.write_str("did not answer just now"),
            () => {
                match outcome {
                    // The task said where.
                    PlacementOutcome::Preferred if held.is_some() => f.write_str("not preferred, ")?,
                    _ if held.is_some() => f.write_str("much busier than the others, ")?,
                    _ => {}
                }
                write!(f, "{} of {} slots free", replica.slots_free, replica.slots_total)?;
                replica.hints.per_token.map_or(Ok(()), |pace| write!(f, ", {}", a_token(pace)))
            }
        }
    }

    /// What was not chosen though the task prefers it, or its session's prompt lies there.
    fn rather(&self) -> Vec<&'a ReplicaId> {
        let preferred = self.preferred();
        let home = self.home.map(|home| &home.key.replica).filter(|home| Some(*home) != preferred);
        preferred.into_iter().chain(home).filter(|name| **name != self.chosen.replica).collect()
    }

    fn preferred(&self) -> Option<&'a ReplicaId> {
        match &self.wish.replica {
            Some((Insist::Prefer, name)) => Some(name),
            _ => None,
        }
    }
}

/// Why a task has to wait.
pub(super) fn why_wait(snapshot: &Snapshot, wish: &Wish) -> String {
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
