//! One pool as dispatch keeps it: its queue, its measured rate, and the replicas it does not trust
//! just now.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use registry::{Registry, SlotLease, Snapshot};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use wire::ReplicaKey;
use wire::event::Queued;
use wire::task::Priority;

use crate::core::TaskCore;
use crate::metrics::{Metrics, PoolMetrics};
use crate::place::{Decision, Wish, place};
use crate::queue::{Ageing, NoPlace, Queue, Waiting};
use crate::rate::Rate;
use crate::{Limits, PoolSpec};

#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) spec: Arc<PoolSpec>,
    pub(crate) metrics: PoolMetrics,
    /// Wakes the pool's loop; a permit is kept, so no wake-up is lost.
    pub(crate) wake: Notify,
    queue: Mutex<Queue<Arc<TaskCore>>>,
    /// Counts changes of the queue, for readers of their place in it.
    moved: watch::Sender<u64>,
    rate: Mutex<Rate>,
    suspects: Mutex<HashMap<(ReplicaKey, u64), Instant>>,
}

/// A task that was given a slot.
pub(crate) struct Placed {
    pub(crate) core: Arc<TaskCore>,
    pub(crate) lease: SlotLease,
    pub(crate) decision: Decision,
}

impl Pool {
    pub(crate) fn new(spec: PoolSpec, limits: &Limits, metrics: &Metrics) -> Self {
        let ageing = Ageing { overtaken: limits.batch_overtaken, wait: limits.batch_wait };
        Self {
            metrics: metrics.pool(&spec.id),
            wake: Notify::new(),
            queue: Mutex::new(Queue::new(spec.queue.capacity, spec.queue.full_policy, ageing)),
            moved: watch::Sender::new(0),
            rate: Mutex::default(),
            suspects: Mutex::default(),
            spec: Arc::new(spec),
        }
    }

    /// Queues a new task; returns one that had to leave for it.
    pub(crate) fn admit(&self, core: &Arc<TaskCore>) -> Result<Option<Arc<TaskCore>>, NoPlace> {
        let dropped = self.change(|queue| queue.admit(core.place, waiting(core)))?;
        if dropped.is_some() {
            // One left for one that came: the length is as before, the places are not.
            self.moved.send_modify(|version| *version += 1);
        }
        Ok(dropped)
    }

    /// Queues a task again whose engine was lost before its first token.
    pub(crate) fn put_back(&self, core: &Arc<TaskCore>) -> Result<(), NoPlace> {
        self.change(|queue| queue.put_back(core.place, waiting(core)))?;
        self.wake.notify_one();
        Ok(())
    }

    /// A task that waits no longer. One that did not wait is no error.
    pub(crate) fn leave(&self, core: &TaskCore) {
        if self.lock_queue().ahead_of(core.place).is_some() {
            self.change(|queue| queue.remove(core.place));
        }
    }

    pub(crate) fn close(&self) -> Vec<Arc<TaskCore>> {
        self.change(Queue::close)
    }

    pub(crate) fn take_expired(&self, now: Instant) -> Vec<Arc<TaskCore>> {
        if self.next_deadline().is_none_or(|deadline| deadline > now) {
            return Vec::new();
        }
        self.change(|queue| queue.take_expired(now))
    }

    /// The next task that can run, with its slot. The queue is locked from choice to lease, so
    /// that two tasks never go for one place; leasing is the registry's own decision.
    pub(crate) fn take_placed(&self, registry: &Registry, now: Instant) -> Option<Placed> {
        // The usual case at saturation, decided without walking the queue.
        if self.depth() == 0 || !registry.snapshot().pool(&self.spec.id).any(|(_, r)| r.takes_work()) {
            return None;
        }
        let suspects = self.suspects(now);
        let usable = |key: &ReplicaKey, generation| !suspects.contains_key(&(key.clone(), generation));
        // Tasks that wish the same are equally stuck: each wish is tried once per walk.
        let mut stuck: Vec<Wish> = Vec::new();
        let offer = |core: &Arc<TaskCore>| {
            if stuck.contains(&core.wish) {
                return None;
            }
            let decision = place(&registry.snapshot(), &core.wish, usable);
            let lease = decision.chosen.as_ref().and_then(|(key, life)| registry.try_lease(key, *life));
            if lease.is_none() {
                stuck.push(core.wish.clone());
            }
            lease.map(|lease| (lease, decision))
        };
        let (core, (lease, decision)) = self.change(|queue| queue.take_first(now, offer))?;
        Some(Placed { core, lease, decision })
    }

    /// When the pool's loop must look again by itself.
    pub(crate) fn next_look(&self, now: Instant) -> Option<Instant> {
        let trust = if self.depth() == 0 { None } else { self.suspects(now).values().min().copied() };
        self.next_deadline().into_iter().chain(trust).min()
    }

    /// Gives a life of a replica no task for a while.
    pub(crate) fn suspect(&self, key: &ReplicaKey, generation: u64, until: Instant) {
        let mut suspects = self.suspects.lock().unwrap_or_else(PoisonError::into_inner);
        suspects.insert((key.clone(), generation), until);
    }

    pub(crate) fn served(&self, held: Duration) {
        self.lock_rate().served(held);
    }

    pub(crate) fn depth(&self) -> u32 {
        u32::try_from(self.lock_queue().len()).unwrap_or(u32::MAX)
    }

    /// A waiting task's place, ageing aside.
    pub(crate) fn queued(&self, core: &TaskCore, snapshot: &Snapshot) -> Option<Queued> {
        let position = self.lock_queue().ahead_of(core.place)?;
        let predicted_start_ms =
            self.predicted_start(position, snapshot).and_then(|wait| u64::try_from(wait.as_millis()).ok());
        Some(Queued { position, predicted_start_ms })
    }

    pub(crate) fn predicted_start(&self, ahead: u32, snapshot: &Snapshot) -> Option<Duration> {
        let (slots, free) = self.slots(snapshot);
        self.lock_rate().predicted_start(ahead, slots, free)
    }

    pub(crate) fn retry_after(&self, snapshot: &Snapshot, limits: &Limits) -> Duration {
        let (slots, _) = self.slots(snapshot);
        let capacity = self.spec.queue.capacity;
        self.lock_rate().retry_after(capacity, slots, limits.retry_after_unmeasured, limits.retry_after_max)
    }

    pub(crate) fn moved(&self) -> watch::Receiver<u64> {
        self.moved.subscribe()
    }

    /// The slot gauges follow the registry.
    pub(crate) fn show_slots(&self, snapshot: &Snapshot) {
        let (slots, free) = self.slots(snapshot);
        self.metrics.slots_total.set(slots.into());
        self.metrics.slots_free.set(free.into());
    }

    fn slots(&self, snapshot: &Snapshot) -> (u32, u32) {
        let ready = snapshot.pool(&self.spec.id).filter(|(_, replica)| replica.ready && !replica.draining);
        ready.fold((0, 0), |(total, free), (_, r)| (total + r.slots_total, free + r.slots_free))
    }

    fn suspects(&self, now: Instant) -> HashMap<(ReplicaKey, u64), Instant> {
        let mut suspects = self.suspects.lock().unwrap_or_else(PoisonError::into_inner);
        suspects.retain(|_, until| *until > now);
        suspects.clone()
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.lock_queue().next_deadline()
    }

    /// Every change of the queue goes through here: the gauges and the places follow it.
    fn change<R>(&self, edit: impl FnOnce(&mut Queue<Arc<TaskCore>>) -> R) -> R {
        let mut queue = self.lock_queue();
        let before = queue.len();
        let result = edit(&mut queue);
        for priority in [Priority::Interactive, Priority::Batch] {
            let depth = i64::try_from(queue.len_of(priority)).unwrap_or(i64::MAX);
            self.metrics.class(priority).queue_depth.set(depth);
        }
        if queue.len() != before {
            self.moved.send_modify(|version| *version += 1);
        }
        result
    }

    fn lock_queue(&self) -> MutexGuard<'_, Queue<Arc<TaskCore>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_rate(&self) -> MutexGuard<'_, Rate> {
        self.rate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn waiting(core: &Arc<TaskCore>) -> Waiting<Arc<TaskCore>> {
    Waiting { since: core.admitted, deadline: core.deadline, item: Arc::clone(core) }
}
