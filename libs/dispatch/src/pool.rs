//! One pool as dispatch keeps it: its queue, what was measured of it, what runs in it, and the
//! replicas it does not trust just now. What it foresees stands in [`crate::foresight`].

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use registry::{Registry, SlotLease, Snapshot};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wire::task::Priority;
use wire::{PoolId, ReplicaKey};

use crate::budget::{Budget, Cause};
use crate::core::{Account, TaskCore};
use crate::distrust::Distrust;
use crate::estimate::{Estimator, Served};
use crate::foresight::Late;
use crate::metrics::{Metrics, PoolMetrics};
use crate::place::{Decision, Wish, place};
use crate::queue::{NoPlace, Queue, Waiting};
use crate::sessions::Sessions;
use crate::size::Size;
use crate::{Limits, PoolMeasured, PoolSpec};

#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) id: PoolId,
    spec: RwLock<Known>,
    pub(crate) metrics: PoolMetrics,
    /// Wakes the pool's loop; a permit is kept, so no wake-up is lost.
    pub(crate) wake: Notify,
    queue: Mutex<Queue<Arc<TaskCore>>>,
    /// Counts changes of the queue, for readers of their place in it.
    moved: watch::Sender<u64>,
    estimator: Mutex<Estimator>,
    /// The tasks that hold a slot, by number, and since when.
    running: Mutex<BTreeMap<u64, (Instant, Arc<TaskCore>)>>,
    distrust: Mutex<Distrust>,
    /// How many tasks may be tried again.
    budget: Mutex<Budget>,
    /// Ends its loop: nobody asks for it any more, and nothing of it waits or runs.
    pub(crate) over: CancellationToken,
}

/// What a pool is taken for.
#[derive(Debug)]
struct Known {
    spec: Arc<PoolSpec>,
    /// A configuration or a handoff has said so, not only a task.
    said: bool,
    /// No configuration names it any more.
    gone: bool,
}

/// Why a task was not queued.
#[derive(Debug, Clone, Copy)]
pub(crate) enum NotQueued {
    NoPlace(NoPlace),
    Late(Late),
}

/// A task that was given a slot.
pub(crate) struct Placed {
    pub(crate) core: Arc<TaskCore>,
    pub(crate) lease: SlotLease,
    pub(crate) decision: Decision,
}

impl Pool {
    pub(crate) fn new(spec: PoolSpec, limits: &Limits, metrics: &Metrics) -> Self {
        let pool = Self::assumed(spec, limits, metrics);
        pool.know(|known| known.said = true);
        pool
    }

    /// A pool that only its tasks speak of so far.
    pub(crate) fn assumed(spec: PoolSpec, limits: &Limits, metrics: &Metrics) -> Self {
        Self {
            metrics: metrics.pool(&spec.id),
            wake: Notify::new(),
            queue: Mutex::new(Queue::new(spec.queue.capacity, spec.queue.full_policy, limits.batch_wait)),
            moved: watch::Sender::new(0),
            estimator: Mutex::default(),
            running: Mutex::default(),
            distrust: Mutex::new(Distrust::new(limits)),
            budget: Mutex::new(Budget::new(&limits.retry, Instant::now())),
            id: spec.id.clone(),
            over: CancellationToken::new(),
            spec: RwLock::new(Known { spec: Arc::new(spec), said: false, gone: false }),
        }
    }

    pub(crate) fn spec(&self) -> Arc<PoolSpec> {
        Arc::clone(&self.spec.read().unwrap_or_else(PoisonError::into_inner).spec)
    }

    /// What the pool is. Says whether that was not known before; its queue stays as it was made.
    pub(crate) fn is_now(&self, spec: PoolSpec) -> bool {
        self.know(|known| {
            let news = !known.said;
            if news {
                (known.spec, known.said) = (Arc::new(spec), true);
            }
            news
        })
    }

    /// The pool is what a changed configuration says. Nothing that waits is turned away by it.
    pub(crate) fn configure(&self, spec: PoolSpec) {
        self.lock_queue().resize(spec.queue.capacity, spec.queue.full_policy);
        self.know(|known| *known = Known { spec: Arc::new(spec), said: true, gone: false });
        self.wake.notify_one();
    }

    /// What an earlier process has measured of it, if it is of the model that it has now.
    pub(crate) fn recall(&self, measured: PoolMeasured) {
        if measured.model_ref == self.spec().model_ref {
            self.lock_estimator().recall(measured.measured);
        }
    }

    /// No configuration names it any more.
    pub(crate) fn is_gone(&self) {
        self.know(|known| known.gone = true);
    }

    /// No configuration names it any more, and nothing of it waits or runs.
    pub(crate) fn has_ended(&self) -> bool {
        let gone = self.know(|known| known.gone);
        gone && self.depth() == 0 && self.lock_running().is_empty()
    }

    fn know<R>(&self, change: impl FnOnce(&mut Known) -> R) -> R {
        change(&mut self.spec.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Queues a new task and says what it foresees for it; returns one that had to leave for it.
    pub(crate) fn admit(
        &self,
        core: &Arc<TaskCore>,
        snapshot: &Snapshot,
    ) -> Result<Option<Arc<TaskCore>>, NotQueued> {
        let dropped = self.change(|queue| {
            if let Some(late) = self.late(queue, core, snapshot) {
                return Err(NotQueued::Late(late));
            }
            let dropped = queue.admit(core.place, waiting(core)).map_err(NotQueued::NoPlace)?;
            if let Some(start) = self.foresee(queue, core, snapshot) {
                // Set once, by its admission.
                let _ = core.predicted.set(start);
            }
            Ok(dropped)
        })?;
        if dropped.is_some() {
            // One left for one that came: the length is as before, the places are not.
            self.moved.send_modify(|version| *version += 1);
        }
        Ok(dropped)
    }

    /// Queues a task again whose engine was lost before its first token.
    pub(crate) fn put_back(&self, core: &Arc<TaskCore>) -> Result<(), NoPlace> {
        self.lock_running().remove(&core.place.seq);
        self.change(|queue| queue.put_back(core.place, waiting(core)))?;
        self.wake.notify_one();
        Ok(())
    }

    /// Queues a task that an earlier process had admitted.
    pub(crate) fn take_over(&self, core: &Arc<TaskCore>) -> Result<(), NoPlace> {
        self.change(|queue| queue.take_over(core.place, waiting(core)))?;
        self.wake.notify_one();
        Ok(())
    }

    /// A task that neither waits nor runs any longer. One that did neither is no error.
    pub(crate) fn leave(&self, core: &TaskCore) {
        if self.lock_queue().waits(core.place) {
            self.change(|queue| queue.remove(core.place));
        }
        // After the queue: a task that is being given its slot is noted while the queue is locked.
        self.lock_running().remove(&core.place.seq);
    }

    /// A task has ended that had a slot: its caller is charged what it was, and the pool learns.
    /// Says what it was; one that never had a slot was nothing.
    pub(crate) fn ended(&self, core: &TaskCore, account: &Account, finished: bool) -> Size {
        if !account.had_slot {
            return Size::default();
        }
        let tokens_in = account.used.tokens_in.unwrap_or(core.size.tokens_in);
        let size = Size { tokens_in, tokens_out: account.used.tokens_out };
        self.lock_queue().settle(core.place.priority, &core.caller, core.size, size);
        if let (true, Some(to_first), Some(total)) = (finished, account.to_first, account.stay) {
            let priority = core.place.priority;
            let cut = core.asked.at_most.is_some_and(|most| size.tokens_out >= most);
            let served = Served { priority, bytes: core.asked.bytes, size, cut, to_first, total };
            self.lock_estimator().served(&served, Instant::now());
            // Places are as before, starts are not.
            self.moved.send_modify(|version| *version += 1);
        }
        size
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
    pub(crate) fn take_placed(
        &self,
        registry: &Registry,
        sessions: &Sessions,
        now: Instant,
    ) -> Option<Placed> {
        // The usual case at saturation, decided without walking the queue.
        if self.depth() == 0 || !registry.snapshot().pool(&self.id).any(|(_, r)| r.takes_work()) {
            return None;
        }
        let suspects = self.suspects(now);
        let suspect = |key: &ReplicaKey, life| suspects.keys().any(|(other, of)| *of == life && other == key);
        let usable = |key: &ReplicaKey, life| !suspect(key, life);
        // Tasks that wish the same are equally stuck: each wish is tried once per walk.
        let mut stuck: Vec<Wish> = Vec::new();
        let offer = |core: &Arc<TaskCore>| {
            if stuck.contains(&core.wish) {
                return None;
            }
            let home = core.session.as_ref().and_then(|id| sessions.home(&core.owner, id));
            let decision = place(&registry.snapshot(), &core.wish, home.as_ref(), usable);
            let lease = decision.chosen.as_ref().and_then(|(key, life)| registry.try_lease(key, *life));
            if lease.is_none() {
                stuck.push(core.wish.clone());
            }
            lease.map(|lease| (lease, decision))
        };
        let (core, (lease, decision)) = self.change(|queue| {
            let taken = queue.take_first(now, offer)?;
            let mut running = self.lock_running();
            running.insert(taken.0.place.seq, (now, Arc::clone(&taken.0)));
            self.lock_budget().run(running.len(), now);
            drop(running);
            Some(taken)
        })?;
        core.placed_on(lease.key(), lease.generation());
        Some(Placed { core, lease, decision })
    }

    /// When the pool's loop must look again by itself.
    pub(crate) fn next_look(&self, now: Instant) -> Option<Instant> {
        let trust = if self.depth() == 0 { None } else { self.suspects(now).values().min().copied() };
        self.next_deadline().into_iter().chain(trust).min()
    }

    /// An engine broke off, or did not take a task: it gets none for a while.
    pub(crate) fn lost(&self, key: &ReplicaKey, generation: u64, pause: Duration) {
        self.lock_distrust().lost(key, generation, Instant::now(), pause);
    }

    /// An engine has reported an error of its own; too many of them make it suspect.
    pub(crate) fn fault(&self, key: &ReplicaKey, generation: u64, until: Instant) {
        self.lock_distrust().fault(key, generation, until);
    }

    /// A task has started for the first time.
    pub(crate) fn first_start(&self, now: Instant) {
        self.lock_budget().started(now);
    }

    /// Whether one more task may be tried again; if not, after which time one may. Counted either way.
    pub(crate) fn try_again(&self, cause: Cause, now: Instant) -> Result<(), Duration> {
        // Also those that began before the window: a prompt may be read for longer than it is.
        let at_once = self.lock_running().len();
        let mut budget = self.lock_budget();
        budget.run(at_once, now);
        let may = budget.try_again(cause, now);
        drop(budget);
        let counter = if may.is_ok() { &self.metrics.tried_again } else { &self.metrics.not_tried_again };
        counter.inc();
        may
    }

    /// An engine has finished a task.
    pub(crate) fn trust(&self, key: &ReplicaKey, generation: u64) {
        self.lock_distrust().trust(key, generation);
    }

    pub(crate) fn depth(&self) -> u32 {
        u32::try_from(self.lock_queue().len()).unwrap_or(u32::MAX)
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

    /// Slots of replicas that take work, and how many of them are free.
    pub(crate) fn slots(&self, snapshot: &Snapshot) -> (u32, u32) {
        let ready = snapshot.pool(&self.id).filter(|(_, replica)| replica.ready && !replica.draining);
        ready.fold((0, 0), |(total, free), (_, r)| (total + r.slots_total, free + r.slots_free))
    }

    /// The same without the free slots of replicas that are left alone for a moment: nobody starts there.
    pub(crate) fn slots_to_count_on(&self, snapshot: &Snapshot, now: Instant) -> (u32, u32) {
        let left_alone = |(key, life): &(ReplicaKey, u64)| {
            let replica = snapshot.replicas.get(key).filter(|r| r.generation == *life && r.takes_work());
            replica.map_or(0, |replica| replica.slots_free)
        };
        let idle: u32 = self.suspects(now).keys().map(left_alone).sum();
        let (total, free) = self.slots(snapshot);
        (total.saturating_sub(idle), free.saturating_sub(idle))
    }

    fn suspects(&self, now: Instant) -> HashMap<(ReplicaKey, u64), Instant> {
        self.lock_distrust().suspects(now)
    }

    fn lock_distrust(&self) -> MutexGuard<'_, Distrust> {
        self.distrust.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Taken last.
    fn lock_budget(&self) -> MutexGuard<'_, Budget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
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

    pub(crate) fn lock_queue(&self) -> MutexGuard<'_, Queue<Arc<TaskCore>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Taken after the queue, never before it.
    pub(crate) fn lock_running(&self) -> MutexGuard<'_, BTreeMap<u64, (Instant, Arc<TaskCore>)>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Taken last.
    pub(crate) fn lock_estimator(&self) -> MutexGuard<'_, Estimator> {
        self.estimator.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn waiting(core: &Arc<TaskCore>) -> Waiting<Arc<TaskCore>> {
    Waiting {
        caller: core.caller.clone(),
        size: core.size,
        since: core.admitted,
        deadline: core.waits_until(),
        item: Arc::clone(core),
    }
}
