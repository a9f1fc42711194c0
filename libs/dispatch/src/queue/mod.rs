//! The waiting tasks of one pool: bounded, two classes, fair between callers.
//!
//! Interactive goes before batch but for batch's share ([`classes`]); inside a class callers take
//! turns ([`fair`]); nobody holds more places than is fair while others come ([`places`]). In which
//! order the tasks would go is asked of the same code that takes them ([`order`]), and where one of
//! them stands is looked up without going through the others ([`rank`]). Keeps no clock and wakes
//! nobody.

mod classes;
mod fair;
mod order;
mod places;
mod rank;
mod sums;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;
use wire::config::FullPolicy;
use wire::task::Priority;

use crate::CallerId;
use crate::size::Size;
use classes::Share;
use fair::Fair;
use order::Order;
use places::Places;

/// Batch's own places are one in so many while both classes come.
const BATCH_PLACES_ONE_IN: usize = 4;

/// Where a task stands: its class and its number, which grows with each admission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) priority: Priority,
    pub(crate) seq: u64,
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct Waiting<T> {
    pub(crate) caller: CallerId,
    /// What it is charged.
    pub(crate) size: Size,
    pub(crate) since: Instant,
    pub(crate) deadline: Option<Instant>,
    pub(crate) item: T,
}

/// Why a task got no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoPlace {
    /// So many tasks wait; what is left of the places is the other class's.
    Full {
        waiting: usize,
    },
    /// Its caller holds so many places, and the rest is for others that come.
    OverShare {
        held: usize,
    },
    Closed,
}

/// What goes before a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ahead {
    /// So many tasks.
    pub(crate) position: usize,
    /// All of them together.
    pub(crate) total: Size,
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct Queue<T> {
    capacity: usize,
    policy: FullPolicy,
    /// After which wait a batch task has grown old.
    batch_wait: Duration,
    interactive: Fair<T>,
    batch: Fair<T>,
    share: Share,
    places: [Places; 2],
    deadlines: BTreeSet<(Instant, u64)>,
    closed: bool,
}

impl<T> Queue<T> {
    pub(crate) fn new(capacity: u32, policy: FullPolicy, batch_wait: Duration) -> Self {
        Self {
            capacity: capacity as usize,
            policy,
            batch_wait,
            interactive: Fair::new(),
            batch: Fair::new(),
            share: Share::default(),
            places: Default::default(),
            deadlines: BTreeSet::new(),
            closed: false,
        }
    }

    /// From now on so many places, and what happens to one more. What waits keeps its place.
    pub(crate) fn resize(&mut self, capacity: u32, policy: FullPolicy) {
        (self.capacity, self.policy) = (capacity as usize, policy);
    }

    /// Takes a task in. With `drop-lru` a full queue gives up a batch task instead, which is
    /// returned: the oldest of the caller with the most of them.
    pub(crate) fn admit(&mut self, place: Place, waiting: Waiting<T>) -> Result<Option<T>, NoPlace> {
        if self.closed {
            return Err(NoPlace::Closed);
        }
        let now = waiting.since;
        self.places_mut(place.priority).saw(&waiting.caller, now);
        let mut dropped = None;
        if self.len() >= self.capacity {
            let oldest = self.batch.oldest_of_the_largest().filter(|_| self.policy == FullPolicy::DropLru);
            let seq = oldest.ok_or(NoPlace::Full { waiting: self.len() })?;
            dropped = self.remove(Place { priority: Priority::Batch, seq });
        } else {
            self.check_shares(place.priority, &waiting.caller, now)?;
        }
        self.insert(place, waiting);
        Ok(dropped)
    }

    /// Whether a class, and a caller in it, may hold one more place.
    fn check_shares(&self, priority: Priority, caller: &CallerId, now: Instant) -> Result<(), NoPlace> {
        let other = match priority {
            Priority::Interactive => Priority::Batch,
            Priority::Batch => Priority::Interactive,
        };
        let kept = match self.places(other).in_use(now) {
            true => self.share_of(other).saturating_sub(self.len_of(other)),
            false => 0,
        };
        let room = self.capacity.saturating_sub(self.len() + kept);
        if room == 0 {
            return Err(NoPlace::Full { waiting: self.len() });
        }
        let (places, class) = (self.places(priority), self.class(priority));
        let mine = if self.places(other).in_use(now) { self.share_of(priority) } else { self.capacity };
        let (share, held) = (places.share(mine, now), class.held_by(caller));
        if held >= share && places.kept_from(caller, share, |other| class.held_by(other), now) >= room {
            return Err(NoPlace::OverShare { held });
        }
        Ok(())
    }

    /// Places that are a class's own while both come.
    fn share_of(&self, priority: Priority) -> usize {
        let batch = (self.capacity / BATCH_PLACES_ONE_IN).max(1).min(self.capacity.saturating_sub(1));
        match priority {
            Priority::Interactive => self.capacity - batch,
            Priority::Batch => batch,
        }
    }

    /// Takes a task back that had a slot and did not begin, over the capacity if need be: it was
    /// admitted once, and has paid for its turn.
    pub(crate) fn put_back(&mut self, place: Place, waiting: Waiting<T>) -> Result<(), NoPlace> {
        if self.closed {
            return Err(NoPlace::Closed);
        }
        self.note_deadline(place, &waiting);
        self.class_mut(place.priority).put_back(place.seq, waiting);
        Ok(())
    }

    /// Takes a task in that an earlier process had admitted, over the capacity if need be.
    pub(crate) fn take_over(&mut self, place: Place, waiting: Waiting<T>) -> Result<(), NoPlace> {
        if self.closed {
            return Err(NoPlace::Closed);
        }
        self.insert(place, waiting);
        Ok(())
    }

    pub(crate) fn remove(&mut self, place: Place) -> Option<T> {
        let waiting = self.class_mut(place.priority).remove(place.seq)?;
        Some(self.left(place.seq, waiting))
    }

    /// Offers the tasks in the order they should go until one is taken. What is taken leaves, and
    /// its caller has had its turn.
    pub(crate) fn take_first<R>(
        &mut self,
        now: Instant,
        mut offer: impl FnMut(&T) -> Option<R>,
    ) -> Option<(T, R)> {
        for priority in self.order_of_classes(now)? {
            if let Some((seq, taken)) = self.class(priority).find(&mut offer) {
                let (interactive, batch) = (cost(&self.interactive), cost(&self.batch));
                let waiting = self.class_mut(priority).take(seq)?;
                let paid = Some(waiting.size.weight());
                match priority {
                    Priority::Interactive => self.share.took(priority, paid, batch),
                    Priority::Batch => self.share.took(priority, interactive, paid),
                }
                return Some((self.left(seq, waiting), taken));
            }
        }
        None
    }

    /// A task that has ended was smaller or larger than it was charged.
    pub(crate) fn settle(&mut self, priority: Priority, caller: &CallerId, charged: Size, real: Size) {
        self.class_mut(priority).settle(caller, charged, real);
    }

    /// Removes the tasks whose deadline is over.
    pub(crate) fn take_expired(&mut self, now: Instant) -> Vec<T> {
        let mut expired = Vec::new();
        while let Some(&(deadline, seq)) = self.deadlines.first().filter(|(deadline, _)| *deadline <= now) {
            self.deadlines.remove(&(deadline, seq));
            let waiting = self.interactive.remove(seq).or_else(|| self.batch.remove(seq));
            expired.extend(waiting.map(|waiting| waiting.item));
        }
        expired
    }

    /// Closes for good and gives everything up, in order.
    pub(crate) fn close(&mut self) -> Vec<T> {
        self.closed = true;
        let order: Vec<_> = self.order().map(|(seq, _)| seq).collect();
        let take = |seq| self.interactive.remove(seq).or_else(|| self.batch.remove(seq));
        let left = order.into_iter().filter_map(take).map(|waiting| waiting.item).collect();
        self.deadlines.clear();
        left
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// What goes before this task; `None` for one that does not wait. Ageing aside, and if nothing
    /// else came.
    pub(crate) fn ahead_of(&self, place: Place) -> Option<Ahead> {
        let (interactive, batch) = (&self.interactive, &self.batch);
        match place.priority {
            Priority::Interactive => rank::before_interactive(interactive, batch, self.share, place.seq),
            Priority::Batch => rank::before_batch(interactive, batch, self.share, place.seq),
        }
    }

    /// What can be seen of the queue as if this task waited, too.
    pub(crate) fn as_if_with<R>(
        &mut self,
        place: Place,
        waiting: Waiting<T>,
        look: impl FnOnce(&Self) -> R,
    ) -> R {
        self.insert(place, waiting);
        let seen = look(self);
        self.remove(place);
        seen
    }

    /// The tasks that go first, in order, one by one.
    pub(crate) fn first_ones(&self) -> impl Iterator<Item = &Waiting<T>> {
        // Not before somebody looks: it begins with a look at every caller.
        std::iter::once_with(|| self.order()).flatten().map(|(_, waiting)| waiting)
    }

    pub(crate) fn waits(&self, place: Place) -> bool {
        self.class(place.priority).holds(place.seq)
    }

    /// All that waits.
    pub(crate) fn total(&self) -> Size {
        let mut total = self.interactive.total();
        total += self.batch.total();
        total
    }

    pub(crate) fn len(&self) -> usize {
        self.interactive.len() + self.batch.len()
    }

    pub(crate) fn len_of(&self, priority: Priority) -> usize {
        self.class(priority).len()
    }

    fn order(&self) -> Order<'_, T> {
        Order::new(&self.interactive, &self.batch, self.share)
    }

    fn insert(&mut self, place: Place, waiting: Waiting<T>) {
        self.note_deadline(place, &waiting);
        self.class_mut(place.priority).insert(place.seq, waiting);
    }

    fn note_deadline(&mut self, place: Place, waiting: &Waiting<T>) {
        if let Some(deadline) = waiting.deadline {
            self.deadlines.insert((deadline, place.seq));
        }
    }

    fn left(&mut self, seq: u64, waiting: Waiting<T>) -> T {
        if let Some(deadline) = waiting.deadline {
            self.deadlines.remove(&(deadline, seq));
        }
        waiting.item
    }

    fn places(&self, priority: Priority) -> &Places {
        let [interactive, batch] = &self.places;
        match priority {
            Priority::Interactive => interactive,
            Priority::Batch => batch,
        }
    }

    fn places_mut(&mut self, priority: Priority) -> &mut Places {
        let [interactive, batch] = &mut self.places;
        match priority {
            Priority::Interactive => interactive,
            Priority::Batch => batch,
        }
    }

    fn order_of_classes(&self, now: Instant) -> Option<[Priority; 2]> {
        let old = |oldest: &Waiting<T>| now.saturating_duration_since(oldest.since) >= self.batch_wait;
        let aged = self.batch.oldest().is_some_and(old);
        let first = self.share.next(cost(&self.interactive), cost(&self.batch), aged)?;
        Some(match first {
            Priority::Interactive => [Priority::Interactive, Priority::Batch],
            Priority::Batch => [Priority::Batch, Priority::Interactive],
        })
    }

    fn class(&self, priority: Priority) -> &Fair<T> {
        match priority {
            Priority::Interactive => &self.interactive,
            Priority::Batch => &self.batch,
        }
    }

    fn class_mut(&mut self, priority: Priority) -> &mut Fair<T> {
        match priority {
            Priority::Interactive => &mut self.interactive,
            Priority::Batch => &mut self.batch,
        }
    }
}

/// What the task whose turn it is in a class weighs.
fn cost<T>(class: &Fair<T>) -> Option<i64> {
    class.first().map(|(_, first)| first.size.weight())
}
