//! The edges of a pool in the order of the keys, so that its replicas are a range of the map: a map is
//! searched by what a key can be borrowed as, and no key stands before or after all of a pool.

use std::borrow::Borrow;
use std::cmp::Ordering;

use wire::{PoolId, ReplicaId, ReplicaKey};

/// A spot in the order of keys: a key, or where a pool begins or ends.
pub trait Spot {
    fn spot(&self) -> (&PoolId, Side<'_>);
}

/// Where in its pool, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side<'a> {
    Before,
    At(&'a ReplicaId),
    After,
}

/// Where a pool begins or ends, whatever its replicas are called.
pub(crate) struct Edge<'a> {
    pool: &'a PoolId,
    side: Side<'static>,
}

impl<'a> Edge<'a> {
    pub(crate) fn start(pool: &'a PoolId) -> Self {
        Self { pool, side: Side::Before }
    }

    pub(crate) fn end(pool: &'a PoolId) -> Self {
        Self { pool, side: Side::After }
    }
}

impl Spot for Edge<'_> {
    fn spot(&self) -> (&PoolId, Side<'_>) {
        (self.pool, self.side)
    }
}

impl Spot for ReplicaKey {
    fn spot(&self) -> (&PoolId, Side<'_>) {
        (&self.pool, Side::At(&self.replica))
    }
}

impl<'a> Borrow<dyn Spot + 'a> for ReplicaKey {
    fn borrow(&self) -> &(dyn Spot + 'a) {
        self
    }
}

// The order of keys is by pool and then by replica, too, so both orders agree as `Borrow` has to.
impl Ord for dyn Spot + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        self.spot().cmp(&other.spot())
    }
}

impl PartialOrd for dyn Spot + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for dyn Spot + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for dyn Spot + '_ {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_the_order_and_the_sameness_that_they_have_as_spots() {
        let names = [("a", "r0"), ("a", "r1"), ("a", "r10"), ("a-b", "r0"), ("b", "r0")];
        let keys = names.map(|(pool, replica)| ReplicaKey {
            pool: PoolId::try_new(pool).unwrap(),
            replica: ReplicaId::try_new(replica).unwrap(),
        });
        for (one, other) in keys.iter().flat_map(|one| keys.iter().map(move |other| (one, other))) {
            let spots: (&dyn Spot, &dyn Spot) = (one, other);
            assert_eq!(spots.0.cmp(spots.1), one.cmp(other));
            assert_eq!(spots.0.partial_cmp(spots.1), one.partial_cmp(other));
            assert_eq!(spots.0 == spots.1, one == other);
        }
    }
}
