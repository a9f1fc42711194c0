//! A pool of slots that serves a load.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use tokio::time::Instant;
use wire::config::FullPolicy;

use super::load::{Arrival, CALLERS, Load, Random};
use super::oracle;
use super::report::{Foretold, Outcome, Report};
use crate::CallerId;
use crate::estimate::{Before, Estimator, Served, Slot};
use crate::queue::{NoPlace, Place, Queue, Waiting};
use crate::size::Size;

const CAPACITY: u32 = 256;
/// Starts that the oracle is asked for in a run, each of which costs it as much as many tasks.
const GUESSES: usize = 400;

/// A pool, and what has become of each task.
pub(super) struct World {
    start: Instant,
    slots: usize,
    queue: Queue<usize>,
    estimator: Estimator,
    pub(super) arrivals: Vec<Arrival>,
    pub(super) outcomes: Vec<Outcome>,
    /// By task: since when, as what.
    running: BTreeMap<usize, (f64, Size)>,
    /// Ends, in microseconds.
    ends: BinaryHeap<Reverse<(u64, usize)>>,
    /// One in so many is asked when it will start; asking all would only take longer.
    asked_one_in: usize,
}

/// Serves the load to its end.
pub(super) fn run(load: &Load) -> Report {
    let mut world = World::new(load);
    let peak = if load.clients > 0 { world.serve_clients(load) } else { world.serve_arrivals(load) };
    let closing = world.arrivals.last().map_or(0.0, |last| last.at);
    while !world.ends.is_empty() {
        world.end_next();
    }
    Report::new(load, &world.arrivals, &world.outcomes, peak, closing)
}

impl World {
    fn new(load: &Load) -> Self {
        let arrivals = if load.clients > 0 { Vec::new() } else { load.arrivals() };
        Self {
            start: Instant::now(),
            slots: load.slots,
            queue: Queue::new(CAPACITY, FullPolicy::Reject, Duration::from_secs(30)),
            estimator: Estimator::default(),
            outcomes: vec![Outcome::default(); arrivals.len()],
            arrivals,
            running: BTreeMap::new(),
            ends: BinaryHeap::new(),
            asked_one_in: 4,
        }
    }

    /// Tasks come by themselves; says how many waited at most.
    fn serve_arrivals(&mut self, load: &Load) -> usize {
        let one_in = (self.arrivals.len() / GUESSES).max(1);
        let mut peak = 0;
        for task in 0..self.arrivals.len() {
            let at = self.arrivals[task].at;
            while self.next_end().is_some_and(|end| end <= at) {
                self.end_next();
            }
            self.arrive(task);
            self.ask_the_oracle(load, task, one_in);
            peak = peak.max(self.queue.len());
        }
        peak
    }

    /// A client's next task comes when its last one has ended; says how many waited at most.
    fn serve_clients(&mut self, load: &Load) -> usize {
        let mut random = Random(load.seed);
        let mut peak = 0;
        for _ in 0..load.clients {
            self.come(Arrival::draw(&mut random, load, 0.0));
        }
        while self.arrivals.last().is_some_and(|last| last.at < load.hours * super::HOUR) {
            self.end_next_of(load, &mut random);
            peak = peak.max(self.queue.len());
            self.ask_the_oracle(load, self.arrivals.len() - 1, 16 * load.slots);
        }
        peak
    }

    fn ask_the_oracle(&mut self, load: &Load, task: usize, one_in: usize) {
        if load.oracle && task.is_multiple_of(one_in) && self.outcomes[task].waits() {
            self.outcomes[task].guessed = oracle::guess(self, load, task);
        }
    }

    /// A task ends, and its client has another.
    pub(super) fn end_next_of(&mut self, load: &Load, random: &mut Random) {
        let Some(Reverse((end, ended))) = self.ends.peek().copied() else { return };
        self.end_next();
        let Arrival { caller, priority, .. } = self.arrivals[ended];
        let at = end as f64 / 1e6;
        self.come(Arrival { at, ..Arrival::of(random, load, caller, priority) });
    }

    /// As it is when this task has just come, with other answers to all that waits and runs, and nothing
    /// of what comes later.
    pub(super) fn imagined(&self, load: &Load, last: usize, random: &mut Random) -> Self {
        let mut world = Self {
            arrivals: self.arrivals[..=last].to_vec(),
            outcomes: self.outcomes[..=last].to_vec(),
            queue: self.queue.clone(),
            estimator: self.estimator.clone(),
            running: self.running.clone(),
            ends: BinaryHeap::new(),
            asked_one_in: usize::MAX,
            ..*self
        };
        let now = self.arrivals[last].at;
        for waiting in self.queue.first_ones() {
            world.arrivals[waiting.item] = self.arrivals[waiting.item].again(random, load, 0.0);
        }
        for (task, (since, _)) in &self.running {
            world.arrivals[*task] = self.arrivals[*task].again(random, load, now - since);
            world.ends_at(*task, since + world.arrivals[*task].service);
        }
        world
    }

    /// When the next task ends that runs.
    pub(super) fn next_end(&self) -> Option<f64> {
        self.ends.peek().map(|Reverse((end, _))| *end as f64 / 1e6)
    }

    fn ends_at(&mut self, task: usize, end: f64) {
        self.ends.push(Reverse(((end * 1e6).ceil() as u64, task)));
    }

    /// One more task comes.
    pub(super) fn come(&mut self, arrival: Arrival) {
        self.arrivals.push(arrival);
        self.outcomes.push(Outcome::default());
        self.arrive(self.arrivals.len() - 1);
    }

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
        if self.outcomes[task].admitted && task.is_multiple_of(self.asked_one_in) {
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
            self.ends_at(task, now + self.arrivals[task].service);
        }
    }

    pub(super) fn end_next(&mut self) {
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
