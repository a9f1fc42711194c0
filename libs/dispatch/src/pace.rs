//! Which of several free replicas is through with a task first: the one that was measured to take the
//! least time for a token, however long the answer will be.

use std::cmp::Reverse;
use std::time::Duration;

use registry::Replica;
use wire::ReplicaKey;

/// Measured paces that differ by less than a part of so many are as good as equal: the rest is noise,
/// and tasks that went to and fro for it would find no prompt of theirs anywhere.
const NOISE: u64 = 10;

/// A replica that takes work. What they are compared by is copied out of the snapshot, so that a thousand
/// of them are read in a row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Free<'a> {
    pub(crate) key: &'a ReplicaKey,
    pub(crate) replica: &'a Replica,
    slots: u32,
    /// Nanoseconds a token; 0 where nothing was measured yet, which is less than anything.
    pace: u64,
}

impl<'a> Free<'a> {
    pub(crate) fn new(key: &'a ReplicaKey, replica: &'a Replica) -> Self {
        let nanos = |pace: Duration| u64::try_from(pace.as_nanos()).unwrap_or(u64::MAX).max(1);
        let pace = replica.hints.per_token.map_or(0, nanos);
        Self { key, replica, slots: replica.slots_free, pace }
    }
}

/// The best of a pool's free replicas, which are in the order of their keys.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Best<'a> {
    pub(crate) chosen: Free<'a>,
    /// Replicas with as many free slots, itself among them.
    pub(crate) equals: usize,
    /// Whether their paces decided, and not only their keys.
    pub(crate) by_pace: bool,
}

/// The most free slots first, then the least predicted end, then the lowest key. A life of which
/// nothing was measured yet goes before those that were, or it never would be.
pub(crate) fn best<'a>(free: &[Free<'a>]) -> Option<Best<'a>> {
    let (Reverse(most), least) = free.iter().map(|free| (Reverse(free.slots), free.pace)).min()?;
    let good_enough = least.saturating_add(least / NOISE);
    let equals = || free.iter().filter(|free| free.slots == most);
    let chosen = *equals().find(|free| free.pace <= good_enough)?;
    let by_pace = !equals().all(|free| free.pace <= good_enough);
    Some(Best { chosen, equals: equals().count(), by_pace })
}

/// A pace in words.
pub(crate) fn a_token(pace: Duration) -> String {
    format!("{:.1} ms a token", pace.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use registry::{Event, Registry, Snapshot, Up};
    use wire::{PoolId, ReplicaId};

    use super::*;

    fn key(nth: usize) -> ReplicaKey {
        let replica = ReplicaId::try_new(format!("r{nth:02}")).unwrap();
        ReplicaKey { pool: PoolId::try_new("p").unwrap(), replica }
    }

    /// Replicas with so many free slots, and what a token takes of each in milliseconds.
    fn snapshot(replicas: &[(u32, Option<u64>)]) -> std::sync::Arc<Snapshot> {
        let registry = Registry::default();
        for (nth, (slots, pace)) in replicas.iter().enumerate() {
            registry.apply(Event::Up(Up::new(key(nth), 1, *slots)));
            if let Some(ms) = pace {
                let took = Duration::from_millis(*ms);
                registry.apply(Event::Generated { key: key(nth), generation: 1, tokens: 1, took });
            }
        }
        registry.snapshot()
    }

    fn of(replicas: &[(u32, Option<u64>)]) -> (usize, usize, bool) {
        let snapshot = snapshot(replicas);
        let free: Vec<Free<'_>> =
            snapshot.replicas.iter().map(|(key, replica)| Free::new(key, replica)).collect();
        let best = best(&free).unwrap();
        let nth = (0..replicas.len()).find(|nth| key(*nth) == *best.chosen.key).unwrap();
        (nth, best.equals, best.by_pace)
    }

    /// ORCHD-PLACE-005
    #[test]
    fn free_slots_come_before_the_pace_the_pace_before_the_key_and_noise_decides_nothing() {
        assert_eq!(of(&[(1, Some(1)), (2, Some(90)), (2, Some(30))]), (2, 2, true));
        assert_eq!(of(&[(2, Some(30)), (2, Some(30)), (1, None)]), (0, 2, false));
        assert_eq!(of(&[(1, Some(109)), (1, Some(100))]), (0, 2, false), "as good as equal");
        assert_eq!(of(&[(1, Some(111)), (1, Some(100))]), (1, 2, true));
    }

    /// ORCHD-PLACE-005
    #[test]
    fn what_was_not_measured_yet_is_tried_and_nothing_is_guessed_of_a_pool_without_measures() {
        assert_eq!(of(&[(1, Some(5)), (1, None), (1, None)]), (1, 3, true));
        assert_eq!(of(&[(1, None), (1, None)]), (0, 2, false));
        assert!(best(&[]).is_none());
    }

    proptest! {
        /// ORCHD-PLACE-005
        #[test]
        fn nobody_with_as_many_free_slots_ends_a_tenth_earlier_and_nobody_before_it_as_early(
            replicas in prop::collection::vec((1_u32..4, prop::option::weighted(0.8, 1_u64..200)), 1..30),
        ) {
            let (chosen, equals, by_pace) = of(&replicas);
            let (slots, pace) = replicas[chosen];
            prop_assert_eq!(of(&replicas), (chosen, equals, by_pace), "the same again");
            prop_assert!(replicas.iter().all(|(other, _)| *other <= slots));
            let same: Vec<usize> = (0..replicas.len()).filter(|nth| replicas[*nth].0 == slots).collect();
            prop_assert_eq!(same.len(), equals);
            let good = |nth: &usize| match (replicas[*nth].1, same.iter().map(|n| replicas[*n].1).min()) {
                (Some(ms), Some(Some(least))) => ms * 10 <= least * 11,
                (ms, least) => Some(ms) == least,
            };
            prop_assert!(good(&chosen), "{:?} among {:?}", pace, replicas);
            prop_assert_eq!(same.iter().copied().filter(good).min(), Some(chosen));
            prop_assert_eq!(by_pace, !same.iter().all(good));
        }
    }
}
