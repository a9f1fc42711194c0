//! The waiting tasks of one pool: bounded, two classes, oldest first, with simple ageing.
//!
//! Interactive goes before batch. So that batch never starves, its oldest task goes first once it
//! has been overtaken often enough or has waited long enough. Keeps no clock and wakes nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;
use wire::config::FullPolicy;
use wire::task::Priority;

/// Where a task stands: its class and its number, which grows with each admission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) priority: Priority,
    pub(crate) seq: u64,
}

#[derive(Debug)]
pub(crate) struct Waiting<T> {
    pub(crate) since: Instant,
    pub(crate) deadline: Option<Instant>,
    pub(crate) item: T,
}

/// Why a task got no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoPlace {
    Full,
    Closed,
}

/// When batch goes before interactive.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ageing {
    pub(crate) overtaken: u32,
    pub(crate) wait: Duration,
}

#[derive(Debug)]
pub(crate) struct Queue<T> {
    capacity: usize,
    policy: FullPolicy,
    ageing: Ageing,
    interactive: BTreeMap<u64, Waiting<T>>,
    batch: BTreeMap<u64, Waiting<T>>,
    deadlines: BTreeSet<(Instant, u64)>,
    overtaken: u32,
    closed: bool,
}

impl<T> Queue<T> {
    pub(crate) fn new(capacity: u32, policy: FullPolicy, ageing: Ageing) -> Self {
        Self {
            capacity: capacity as usize,
            policy,
            ageing,
            interactive: BTreeMap::new(),
            batch: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            overtaken: 0,
            closed: false,
        }
    }

    /// Takes a task in. With `drop-lru` a full queue gives up its oldest batch task instead, which
    /// is returned.
    pub(crate) fn admit(&mut self, place: Place, waiting: Waiting<T>) -> Result<Option<T>, NoPlace> {
        if self.closed {
            return Err(NoPlace::Closed);
        }
        let mut dropped = None;
        if self.len() >= self.capacity {
            let oldest = self.batch.keys().next().copied().filter(|_| self.policy == FullPolicy::DropLru);
            let Some(seq) = oldest else { return Err(NoPlace::Full) };
            dropped = self.remove(Place { priority: Priority::Batch, seq });
        }
        self.insert(place, waiting);
        Ok(dropped)
    }

    /// Takes a task back in its old place, over the capacity if need be: it was admitted once.
    pub(crate) fn put_back(&mut self, place: Place, waiting: Waiting<T>) -> Result<(), NoPlace> {
        if self.closed {
            return Err(NoPlace::Closed);
        }
        self.insert(place, waiting);
        Ok(())
    }

    pub(crate) fn remove(&mut self, place: Place) -> Option<T> {
        let waiting = self.class_mut(place.priority).remove(&place.seq)?;
        if let Some(deadline) = waiting.deadline {
            self.deadlines.remove(&(deadline, place.seq));
        }
        Some(waiting.item)
    }

    /// Offers the tasks in the order they should go until one is taken. What is taken leaves.
    pub(crate) fn take_first<R>(
        &mut self,
        now: Instant,
        mut offer: impl FnMut(&T) -> Option<R>,
    ) -> Option<(T, R)> {
        for priority in self.order(now) {
            let class = self.class(priority);
            let taken = class.iter().find_map(|(seq, waiting)| Some((*seq, offer(&waiting.item)?)));
            if let Some((seq, taken)) = taken {
                self.count_overtaking(priority);
                return self.remove(Place { priority, seq }).map(|item| (item, taken));
            }
        }
        None
    }

    /// Removes the tasks whose deadline is over.
    pub(crate) fn take_expired(&mut self, now: Instant) -> Vec<T> {
        let mut expired = Vec::new();
        while let Some(&(deadline, seq)) = self.deadlines.first().filter(|(deadline, _)| *deadline <= now) {
            self.deadlines.remove(&(deadline, seq));
            let waiting = self.interactive.remove(&seq).or_else(|| self.batch.remove(&seq));
            expired.extend(waiting.map(|waiting| waiting.item));
        }
        expired
    }

    /// Closes for good and gives everything up, in order.
    pub(crate) fn close(&mut self) -> Vec<T> {
        self.closed = true;
        self.deadlines.clear();
        let interactive = std::mem::take(&mut self.interactive);
        let batch = std::mem::take(&mut self.batch);
        interactive.into_values().chain(batch.into_values()).map(|waiting| waiting.item).collect()
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Tasks that go first, ageing aside; `None` for one that does not wait.
    pub(crate) fn ahead_of(&self, place: Place) -> Option<u32> {
        let class = self.class(place.priority);
        class.get(&place.seq)?;
        let before = class.range(..place.seq).count();
        let interactive = if place.priority == Priority::Batch { self.interactive.len() } else { 0 };
        Some(u32::try_from(before + interactive).unwrap_or(u32::MAX))
    }

    pub(crate) fn len(&self) -> usize {
        self.interactive.len() + self.batch.len()
    }

    pub(crate) fn len_of(&self, priority: Priority) -> usize {
        self.class(priority).len()
    }

    fn insert(&mut self, place: Place, waiting: Waiting<T>) {
        if let Some(deadline) = waiting.deadline {
            self.deadlines.insert((deadline, place.seq));
        }
        self.class_mut(place.priority).insert(place.seq, waiting);
    }

    fn order(&self, now: Instant) -> [Priority; 2] {
        let aged = self.batch.values().next().is_some_and(|oldest| {
            self.overtaken >= self.ageing.overtaken
                || now.saturating_duration_since(oldest.since) >= self.ageing.wait
        });
        if aged { [Priority::Batch, Priority::Interactive] } else { [Priority::Interactive, Priority::Batch] }
    }

    fn count_overtaking(&mut self, taken: Priority) {
        match taken {
            Priority::Batch => self.overtaken = 0,
            Priority::Interactive if self.batch.is_empty() => self.overtaken = 0,
            Priority::Interactive => self.overtaken = self.overtaken.saturating_add(1),
        }
    }

    fn class(&self, priority: Priority) -> &BTreeMap<u64, Waiting<T>> {
        match priority {
            Priority::Interactive => &self.interactive,
            Priority::Batch => &self.batch,
        }
    }

    fn class_mut(&mut self, priority: Priority) -> &mut BTreeMap<u64, Waiting<T>> {
        match priority {
            Priority::Interactive => &mut self.interactive,
            Priority::Batch => &mut self.batch,
        }
    }
}
