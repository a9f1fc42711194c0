//! What queueing costs: run it with `--release` for numbers that mean something.

use std::time::{Duration, Instant as Clock};

use tokio::time::Instant;
use wire::config::FullPolicy;
use wire::task::Priority;

use crate::CallerId;
use crate::queue::{Place, Queue, Waiting};
use crate::size::Size;

/// A debug build on a busy machine is allowed this much more.
pub(super) const PATIENCE: u32 = if cfg!(debug_assertions) { 40 } else { 1 };
const WAITING: u64 = 10_000;
/// Admissions and takings that are measured together, and how often.
const BATCH: u32 = 50;
const ROUNDS: u32 = 20;

/// What an admission, a taking and the look at a place cost with ten thousand tasks waiting.
fn cost(callers: u64) -> [Duration; 3] {
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
    let mut costs = [Duration::MAX; 3];
    // Whatever else runs only adds: of many rounds the shortest is what it costs.
    for _ in 0..ROUNDS {
        let rounds = [
            each(BATCH, || {
                admit(&mut queue, seq);
                seq += 1;
            }),
            each(BATCH, || assert!(queue.take_first(now, |_| Some(())).is_some())),
            each(1, || drop(std::hint::black_box(queue.ahead_of(place(seq - 1))))),
        ];
        costs.iter_mut().zip(rounds).for_each(|(least, round)| *least = round.min(*least));
    }
    costs
}

fn each(times: u32, mut work: impl FnMut()) -> Duration {
    let began = Clock::now();
    (0..times).for_each(|_| work());
    began.elapsed() / times
}

/// ORCHD-FAIR-007
#[test]
fn a_turn_costs_microseconds_with_ten_thousand_waiting() {
    super::report::say("\n| callers | enqueue | dequeue | a position |\n|--:|--:|--:|--:|");
    for callers in [1, 10, 200] {
        let [admitting, taking, position] = cost(callers);
        super::report::say(&format!("| {callers} | {admitting:?} | {taking:?} | {position:?} |"));
        let bar = Duration::from_micros(5) * PATIENCE;
        assert!(admitting <= bar && taking <= bar, "{admitting:?} to admit, {taking:?} to take");
    }
}
