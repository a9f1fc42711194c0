//! Who comes when, with what.

use wire::task::Priority;

use super::HOUR;
use crate::estimate::Asked;
use crate::size::Size;

/// Seconds per prompt token and per generated token.
pub(super) const PER_TOKEN: (f64, f64) = (0.0005, 0.02);
pub(super) const CALLERS: usize = 10;

/// A scenario.
#[derive(Clone, Copy)]
pub(super) struct Load {
    pub(super) seed: u64,
    pub(super) slots: usize,
    pub(super) hours: f64,
    /// Work that comes, in multiples of what the slots can do, by the hour.
    pub(super) offered: fn(f64) -> f64,
    /// Share of the tasks that are batch.
    pub(super) batch: f64,
    /// Share of the tasks that the first caller sends.
    pub(super) flood: f64,
    /// How unlike the tasks of a class are; 1 is as people are.
    pub(super) spread: f64,
    /// A closed loop of so many clients instead of tasks that come by themselves, if there are any.
    pub(super) clients: usize,
    /// Whether the oracle is asked, too.
    pub(super) oracle: bool,
}

impl Load {
    pub(super) const STEADY: Self = Self {
        seed: 1,
        slots: 1,
        hours: 6.0,
        offered: |_| 1.0,
        batch: 0.2,
        flood: 0.5,
        spread: 1.0,
        clients: 0,
        oracle: false,
    };

    /// The tasks that come, in order.
    pub(super) fn arrivals(&self) -> Vec<Arrival> {
        let mut random = Random(self.seed);
        let mut arrivals = Vec::new();
        let mean = self.mean(&mut random);
        let mut at = 0.0;
        while at < self.hours * HOUR {
            let arrival = self.next(&mut random, at, mean);
            at = arrival.at;
            arrivals.push(arrival);
        }
        arrivals
    }

    /// Seconds that a task holds its slot: of a log-normal with these parameters, measured rather than
    /// derived.
    pub(super) fn mean(&self, random: &mut Random) -> f64 {
        let sample = (0..4_000).map(|_| Arrival::draw(random, self, 0.0).service);
        sample.sum::<f64>() / 4_000.0
    }

    /// The task that comes next.
    pub(super) fn next(&self, random: &mut Random, at: f64, mean: f64) -> Arrival {
        let per_second = (self.offered)(at / HOUR) * self.slots as f64 / mean;
        let at = at - (1.0 - random.unit()).ln() / per_second.max(1e-6);
        Arrival::draw(random, self, at)
    }
}

/// A task as it comes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    pub(super) at: f64,
    pub(super) caller: usize,
    pub(super) priority: Priority,
    pub(super) size: Size,
    pub(super) at_most: Option<u64>,
    /// Seconds until its first token and in all.
    pub(super) to_first: f64,
    pub(super) service: f64,
}

impl Arrival {
    /// What is known of it when it comes.
    pub(super) fn asked(&self) -> Asked {
        let bytes = self.size.tokens_in as usize * 4;
        Asked { priority: self.priority, bytes, tokens_in: None, cached: false, at_most: self.at_most }
    }

    pub(super) fn draw(random: &mut Random, load: &Load, at: f64) -> Self {
        let batch = random.unit() < load.batch;
        let others = 1 + (random.unit() * (CALLERS - 1) as f64) as usize;
        let caller = if random.unit() < load.flood { 0 } else { others.min(CALLERS - 1) };
        let priority = if batch { Priority::Batch } else { Priority::Interactive };
        Self { at, ..Self::of(random, load, caller, priority) }
    }

    /// A task of this caller and class.
    pub(super) fn of(random: &mut Random, load: &Load, caller: usize, priority: Priority) -> Self {
        let prompt = if priority == Priority::Batch { 1_200.0 } else { 300.0 };
        let at_most = (random.unit() < 0.5).then_some(256);
        let tokens_in = (prompt * random.log_normal(0.8 * load.spread)).ceil().min(8_000.0);
        Self {
            at: 0.0,
            caller,
            priority,
            size: Size { tokens_in: tokens_in as u64, tokens_out: 0 },
            at_most,
            to_first: 0.0,
            service: 0.0,
        }
        .answered(random, load)
    }

    /// What nobody knows of it before.
    fn answered(self, random: &mut Random, load: &Load) -> Self {
        let answer = if self.priority == Priority::Batch { 250.0 } else { 120.0 };
        let wanted = (answer * random.log_normal(0.7 * load.spread)).ceil().min(4_000.0);
        let tokens_out = self.at_most.map_or(wanted, |most: u64| wanted.min(most as f64));
        let noise = random.log_normal(0.1);
        let to_first = self.size.tokens_in as f64 * PER_TOKEN.0 * noise;
        let service = to_first + tokens_out * PER_TOKEN.1 * noise;
        let size = Size { tokens_out: tokens_out as u64, ..self.size };
        Self { size, to_first, service, ..self }
    }

    /// The same task with another answer, of those that hold their slot for longer than so many seconds.
    pub(super) fn again(self, random: &mut Random, load: &Load, held: f64) -> Self {
        let answers = std::iter::repeat_with(|| self.answered(random, load)).take(10_000);
        let mut longer = answers.filter(|task| task.service > held);
        // One in ten thousand that is nearly through.
        longer.next().unwrap_or(Self { service: held + 0.1, ..self })
    }
}

/// SplitMix64: the same seed, the same day.
pub(super) struct Random(pub(super) u64);

impl Random {
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In [0, 1).
    pub(super) fn unit(&mut self) -> f64 {
        (self.draw() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// With median 1.
    fn log_normal(&mut self, sigma: f64) -> f64 {
        let (a, b) = (1.0 - self.unit(), self.unit());
        (sigma * (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()).exp()
    }
}
