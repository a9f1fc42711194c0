//! What queueing and foretelling cost: run it with `--release` for numbers that mean something.

use std::time::{Duration, Instant as Clock};

use tokio::time::Instant;
use wire::config::FullPolicy;
use wire::task::Priority;

use crate::CallerId;
use crate::estimate::{Asked, Before, Estimator, Served, Slot};
use crate::queue::{Place, Queue, Waiting};
use crate::size::Size;

/// A debug build on a busy machine is allowed this much more.
pub(super) const PATIENCE: u32 = if cfg!(debug_assertions) { 40 } else { 1 };
const WAITING: u64 = 10_000;
/// Admissions and takings that are measured together, and how often.
const BATCH: u32 = 50;
const ROUNDS: u32 = 20;

/// What an admission, a taking, a place and a start that is foretold cost with ten thousand tasks
/// waiting.
fn cost(callers: u64) -> [Duration; 4] {
    let now = Instant::now();
    let mut queue = Queue::new(20_000, FullPolicy::Reject, Duration::from_secs(30));
    let place = |seq: u64| Place {
        priority: if seq.is_multiple_of(3) { Priority::Batch } else { Priority::Interactive },
        seq,
    };
    let names: Vec<CallerId> = (0..callers).map(|n| CallerId::key(&n.to_string())).collect();
    let admit = |queue: &mut Queue<u64>, seq: u64| {
        let caller = names[(seq % callers) as usize].clone();
        let size = Size { tokens_in: seq % 900, tokens_out: 1 + seq % 170 };
        let waiting = Waiting { caller, size, since: now, deadline: None, item: seq };
        let _either_way = queue.admit(place(seq), waiting);
    };
    let mut seq = 0;
    while (queue.len() as u64) < WAITING {
        admit(&mut queue, seq);
        seq += 1;
        assert!(seq < 4 * WAITING, "the queue fills");
    }
    let (estimator, slots) = pool(now);
    let foretell = |queue: &Queue<u64>, place| {
        let ahead = queue.ahead_of(place)?;
        let tasks = queue.first_ones().map(|waiting| (asked(), waiting.size));
        estimator.start(&slots, Before { position: ahead.position, total: ahead.total, tasks })
    };
    let mut costs = [Duration::MAX; 4];
    // Whatever else runs only adds: of many rounds the shortest is what it costs.
    for _ in 0..ROUNDS {
        let rounds = [
            each(BATCH, || {
                admit(&mut queue, seq);
                seq += 1;
            }),
            each(BATCH, || assert!(queue.take_first(now, |_| Some(())).is_some())),
            each(BATCH, || assert!(std::hint::black_box(queue.ahead_of(place(seq - 1))).is_some())),
            each(BATCH, || assert!(std::hint::black_box(foretell(&queue, place(seq - 1))).is_some())),
        ];
        costs.iter_mut().zip(rounds).for_each(|(least, round)| *least = round.min(*least));
    }
    costs
}

/// Eight slots with a task each, and something measured.
fn pool(now: Instant) -> (Estimator, Vec<Slot>) {
    let mut estimator = Estimator::default();
    let size = Size { tokens_in: 400, tokens_out: 120 };
    let (to_first, total) = (Duration::from_millis(200), Duration::from_secs(3));
    let served = Served { priority: Priority::Interactive, bytes: 1_600, size, cut: false, to_first, total };
    estimator.served(&served, now);
    let slots = (0..8).map(|n| Slot::Busy { asked: asked(), size, held: f64::from(n) / 4.0 });
    (estimator, slots.collect())
}

fn asked() -> Asked {
    Asked {
        priority: Priority::Interactive,
        bytes: 1_600,
        tokens_in: None,
        cached: false,
        at_most: Some(256),
    }
}

fn each(times: u32, mut work: impl FnMut()) -> Duration {
    let began = Clock::now();
    (0..times).for_each(|_| work());
    began.elapsed() / times
}

/// ORCHD-FAIR-007, ORCHD-FAIR-008
#[test]
fn a_turn_costs_microseconds_with_ten_thousand_waiting() {
    super::report::say("\n| callers | enqueue | dequeue | a position | a start |\n|--:|--:|--:|--:|--:|");
    for callers in [1, 10, 200] {
        let [admitting, taking, position, start] = cost(callers);
        let row = format!("| {callers} | {admitting:?} | {taking:?} | {position:?} | {start:?} |");
        super::report::say(&row);
        let bar = Duration::from_micros(5) * PATIENCE;
        assert!(admitting <= bar && taking <= bar, "{admitting:?} to admit, {taking:?} to take");
        // A look at each caller, however many tasks they have.
        let bar = bar * u32::try_from(callers.div_ceil(10)).unwrap();
        assert!(start <= bar, "{start:?} to foretell a start");
    }
}
