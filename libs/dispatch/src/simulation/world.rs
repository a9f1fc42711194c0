//! A pool of slots that serves a load.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use tokio::time::Instant;
use wire::config::FullPolicy;

use super::load::{Arrival, CALLERS, Load};
use super::report::{Foretold, Outcome, Report};
use crate::CallerId;
use crate::estimate::{Before, Estimator, Served, Slot};
use crate::queue::{NoPlace, Place, Queue, Waiting};
use crate::size::Size;

const CAPACITY: u32 = 256;

/// A pool, and what has become of each task.
struct World {
    start: Instant,
    slots: usize,
    queue: Queue<usize>,
    estimator: Estimator,
    arrivals: Vec<Arrival>,
    outcomes: Vec<Outcome>,
    /// By task: since when, as what.
    running: BTreeMap<usize, (f64, Size)>,
    /// Ends, in microseconds.
    ends: BinaryHeap<Reverse<(u64, usize)>>,
}

/// Serves the load to its end.
pub(super) fn run(load: &Load) -> Report {
    let arrivals = load.arrivals();
    let mut world = World {
        start: Instant::now(),
        slots: load.slots,
        queue: Queue::new(CAPACITY, FullPolicy::Reject, Duration::from_secs(30)),
        estimator: Estimator::default(),
        outcomes: vec![Outcome::default(); arrivals.len()],
        arrivals,
        running: BTreeMap::new(),
        ends: BinaryHeap::new(),
    };
    let mut peak = 0;
    for task in 0..world.arrivals.len() {
        let at = world.arrivals[task].at;
        while let Some(Reverse((end, _))) = world.ends.peek()
            && (*end as f64) / 1e6 <= at
        {
            world.end_next();
        }
        world.arrive(task);
        peak = peak.max(world.queue.len());
    }
    let closing = world.arrivals.last().map_or(0.0, |last| last.at);
    while !world.ends.is_empty() {
        world.end_next();
    }
    Report::new(load, &world.arrivals, &world.outcomes, peak, closing)
}

impl World {
    fn instant(&self, at: f64) -> Instant {
        self.start + Duration::from_secs_f64(at)
    }

    fn place(&self, task: usize) -> Place {
        Place { priority: self.arrivals[task].priority, seq: task as u64 }
    }

    fn arrive(&mut self, task: usize) {
        let arrival = self.arrivals[task];
        let asked = arrival.asked();
        let waiting = Waiting {
            caller: caller(arrival.caller),
            size: self.estimator.expect(&asked),
            since: self.instant(arrival.at),
            deadline: None,
            item: task,
        };
        match self.queue.admit(self.place(task), waiting) {
            Ok(_) => self.outcomes[task].admitted = true,
            Err(NoPlace::Full { .. } | NoPlace::OverShare { .. } | NoPlace::Closed) => {}
        }
        // One in four is asked when it will start; asking all would only take longer.
        if self.outcomes[task].admitted && task.is_multiple_of(4) {
            self.outcomes[task].foretold = self.foretell(task, arrival.at);
        }
        self.fill(arrival.at);
    }

    fn foretell(&self, task: usize, now: f64) -> Option<Foretold> {
        let ahead = self.queue.ahead_of(self.place(task))?;
        let busy = self.running.iter().map(|(task, (since, size))| Slot::Busy {
            asked: self.arrivals[*task].asked(),
            size: *size,
            held: now - since,
        });
        let slots: Vec<Slot> = busy.chain(std::iter::repeat(Slot::Free)).take(self.slots).collect();
        let asked = |waiting: &Waiting<usize>| (self.arrivals[waiting.item].asked(), waiting.size);
        let tasks = self.queue.first_ones().map(asked);
        let before = Before { position: ahead.position, total: ahead.total, tasks };
        let queue = self.estimator.start(&slots, before)?;
        let arrival = &self.arrivals[task];
        let told = self.estimator.corrected(&caller(arrival.caller), arrival.priority, queue);
        Some(Foretold { position: ahead.position, queue, told: told.as_secs_f64() })
    }

    fn fill(&mut self, now: f64) {
        while self.running.len() < self.slots {
            let size = |queue: &mut Queue<usize>, at| {
                let mut charged = Size::default();
                let total = queue.total();
                let (task, ()) = queue.take_first(at, |_| Some(()))?;
                charged += total;
                charged -= queue.total();
                Some((task, charged))
            };
            let at = self.instant(now);
            let Some((task, charged)) = size(&mut self.queue, at) else { return };
            self.outcomes[task].started = Some(now);
            if let Some(foretold) = self.outcomes[task].foretold {
                let arrival = &self.arrivals[task];
                let waited = Duration::from_secs_f64(now - arrival.at);
                self.estimator.started(&caller(arrival.caller), arrival.priority, foretold.queue, waited);
            }
            self.running.insert(task, (now, charged));
            let end = now + self.arrivals[task].service;
            self.ends.push(Reverse(((end * 1e6).ceil() as u64, task)));
        }
    }

    fn end_next(&mut self) {
        let Some(Reverse((end, task))) = self.ends.pop() else { return };
        let now = end as f64 / 1e6;
        let arrival = self.arrivals[task];
        if let Some((_, charged)) = self.running.remove(&task) {
            self.queue.settle(arrival.priority, &caller(arrival.caller), charged, arrival.size);
        }
        let served = Served {
            priority: arrival.priority,
            bytes: arrival.size.tokens_in as usize * 4,
            size: arrival.size,
            cut: arrival.at_most.is_some_and(|most| arrival.size.tokens_out >= most),
            to_first: Duration::from_secs_f64(arrival.to_first),
            total: Duration::from_secs_f64(arrival.service),
        };
        self.estimator.served(&served, self.instant(now));
        self.fill(now);
    }
}

fn caller(n: usize) -> CallerId {
    debug_assert!(n < CALLERS);
    CallerId::key(&n.to_string())
}
