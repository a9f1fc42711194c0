//! Whose the places of a full queue are: while others come too, nobody may hold more than a fair
//! share of them.
//!
//! Turns alone are not fair: who fills the queue leaves the others nothing to take turns with. A
//! caller may hold more than its share only as long as the shares of all others that were seen
//! lately stay free. A caller that is alone has every place.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::CallerId;

/// A caller that has not come for so long leaves its share to the others.
const LATELY: Duration = Duration::from_secs(60);
/// Callers that are kept count of; more of them share like so many.
const MOST: usize = 256;

/// The callers that were seen lately.
#[derive(Debug, Default)]
pub(super) struct Places {
    seen: HashMap<CallerId, Instant>,
}

impl Places {
    /// Notes that a caller has come, and forgets those that have not for long.
    pub(super) fn saw(&mut self, caller: &CallerId, now: Instant) {
        if let Some(last) = self.seen.get_mut(caller) {
            *last = now;
            return;
        }
        self.seen.retain(|_, last| now.saturating_duration_since(*last) < LATELY);
        if self.seen.len() < MOST {
            self.seen.insert(caller.clone(), now);
        }
    }

    /// How many places each may hold for certain.
    pub(super) fn share(&self, capacity: usize, now: Instant) -> usize {
        (capacity / self.lately(now).count().max(1)).max(1)
    }

    /// Places that must stay free of `caller`'s tasks: what the others' shares still want.
    pub(super) fn kept_from(
        &self,
        caller: &CallerId,
        share: usize,
        held: impl Fn(&CallerId) -> usize,
        now: Instant,
    ) -> usize {
        let others = self.lately(now).filter(|other| *other != caller);
        others.map(|other| share.saturating_sub(held(other))).sum()
    }

    fn lately(&self, now: Instant) -> impl Iterator<Item = &CallerId> {
        let lately = move |(_, last): &(&CallerId, &Instant)| now.saturating_duration_since(**last) < LATELY;
        self.seen.iter().filter(lately).map(|(caller, _)| caller)
    }
}
