//! Whose the places of a queue are: while others come too, neither a class nor a caller may hold
//! more than its share of them.
//!
//! Turns alone are not fair: who fills the queue leaves the others nothing to take turns with, and
//! batch tasks, which wait longest, fill it by themselves. More than its share may be held only as
//! long as the shares of all others that were seen lately stay free. Who is alone has every place.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::CallerId;

/// A caller that has not come for so long leaves its share to the others.
const LATELY: Duration = Duration::from_secs(60);
/// Callers that are kept count of; more of them share like so many.
pub(super) const MOST: usize = 256;

/// The callers of one class that were seen lately.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Places {
    seen: HashMap<CallerId, Instant>,
    last: Option<Instant>,
}

impl Places {
    /// Notes that a caller has come, and forgets those that have not for long.
    pub(super) fn saw(&mut self, caller: &CallerId, now: Instant) {
        self.last = Some(now);
        if let Some(last) = self.seen.get_mut(caller) {
            *last = now;
            return;
        }
        self.seen.retain(|_, last| is_lately(*last, now));
        if self.seen.len() < MOST {
            self.seen.insert(caller.clone(), now);
        }
    }

    /// Whether anybody has come.
    pub(super) fn in_use(&self, now: Instant) -> bool {
        self.last.is_some_and(|last| is_lately(last, now))
    }

    /// How many of its class's places each caller may hold for certain.
    pub(super) fn share(&self, places: usize, now: Instant) -> usize {
        (places / self.lately(now).count().max(1)).max(1)
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
        self.seen.iter().filter(move |(_, last)| is_lately(**last, now)).map(|(caller, _)| caller)
    }
}

fn is_lately(last: Instant, now: Instant) -> bool {
    now.saturating_duration_since(last) < LATELY
}
