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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const AGEING: Ageing = Ageing { overtaken: 3, wait: Duration::from_secs(30) };

    fn queue(capacity: u32, policy: FullPolicy) -> Queue<u64> {
        Queue::new(capacity, policy, AGEING)
    }

    fn add(queue: &mut Queue<u64>, priority: Priority, seq: u64) -> Result<Option<u64>, NoPlace> {
        let waiting = Waiting { since: Instant::now(), deadline: None, item: seq };
        queue.admit(Place { priority, seq }, waiting)
    }

    fn drain(queue: &mut Queue<u64>) -> Vec<u64> {
        let mut taken = Vec::new();
        while let Some((item, ())) = queue.take_first(Instant::now(), |_| Some(())) {
            taken.push(item);
        }
        taken
    }

    #[tokio::test(start_paused = true)]
    async fn interactive_goes_first_and_batch_after_being_overtaken_often_enough() {
        let mut queue = queue(16, FullPolicy::Reject);
        add(&mut queue, Priority::Batch, 0).unwrap();
        add(&mut queue, Priority::Batch, 1).unwrap();
        for seq in 2..8 {
            add(&mut queue, Priority::Interactive, seq).unwrap();
        }
        assert_eq!(drain(&mut queue), [2, 3, 4, 0, 5, 6, 7, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_task_that_waited_long_enough_goes_first() {
        let mut queue = queue(16, FullPolicy::Reject);
        add(&mut queue, Priority::Batch, 0).unwrap();
        tokio::time::advance(AGEING.wait).await;
        add(&mut queue, Priority::Interactive, 1).unwrap();
        assert_eq!(drain(&mut queue), [0, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_drops_its_oldest_batch_task_or_refuses() {
        let mut dropping = queue(2, FullPolicy::DropLru);
        add(&mut dropping, Priority::Batch, 0).unwrap();
        add(&mut dropping, Priority::Batch, 1).unwrap();
        assert_eq!(add(&mut dropping, Priority::Interactive, 2), Ok(Some(0)));
        assert_eq!(add(&mut dropping, Priority::Interactive, 3), Ok(Some(1)));
        assert_eq!(add(&mut dropping, Priority::Interactive, 4), Err(NoPlace::Full));
        let mut refusing = queue(1, FullPolicy::Reject);
        add(&mut refusing, Priority::Batch, 0).unwrap();
        assert_eq!(add(&mut refusing, Priority::Interactive, 1), Err(NoPlace::Full));
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_cannot_run_now_does_not_hold_up_the_ones_behind_it() {
        let mut queue = queue(16, FullPolicy::Reject);
        for seq in 0..3 {
            add(&mut queue, Priority::Interactive, seq).unwrap();
        }
        let taken = queue.take_first(Instant::now(), |seq| (*seq > 0).then_some(()));
        assert_eq!(taken.map(|(seq, ())| seq), Some(1));
        assert_eq!(drain(&mut queue), [0, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_put_back_has_its_old_place() {
        let mut queue = queue(2, FullPolicy::Reject);
        for seq in 0..2 {
            add(&mut queue, Priority::Interactive, seq).unwrap();
        }
        let (first, ()) = queue.take_first(Instant::now(), |_| Some(())).unwrap();
        add(&mut queue, Priority::Interactive, 2).unwrap();
        let waiting = Waiting { since: Instant::now(), deadline: None, item: first };
        queue.put_back(Place { priority: Priority::Interactive, seq: first }, waiting).unwrap();
        assert_eq!(drain(&mut queue), [0, 1, 2]);
    }

    proptest! {
        #[test]
        fn the_bound_holds_and_every_task_leaves_exactly_once(
            acts in proptest::collection::vec((0..5_u8, any::<bool>(), 0..40_u64), 0..120),
            drop_lru: bool,
        ) {
            let policy = if drop_lru { FullPolicy::DropLru } else { FullPolicy::Reject };
            let mut queue = queue(4, policy);
            let now = Instant::now();
            let (mut admitted, mut left) = (Vec::new(), Vec::new());
            for (seq, (act, batch, other)) in (0..).zip(acts) {
                let priority = if batch { Priority::Batch } else { Priority::Interactive };
                match act {
                    0..3 => {
                        let deadline = (other % 3 == 0).then(|| now + Duration::from_secs(other));
                        let waiting = Waiting { since: now, deadline, item: seq };
                        if let Ok(dropped) = queue.admit(Place { priority, seq }, waiting) {
                            admitted.push(seq);
                            left.extend(dropped);
                        }
                    }
                    3 => left.extend(queue.take_first(now, |_| Some(())).map(|(seq, ())| seq)),
                    _ if batch => left.extend(queue.take_expired(now + Duration::from_secs(other))),
                    _ => left.extend(queue.remove(Place { priority, seq: other })),
                }
                prop_assert!(queue.len() <= 4);
                prop_assert_eq!(queue.len() + left.len(), admitted.len());
            }
            left.extend(queue.close());
            left.sort_unstable();
            prop_assert_eq!(left, admitted);
            prop_assert_eq!(queue.next_deadline(), None);
        }
    }
}
