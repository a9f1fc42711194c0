//! When a task starts that has others before it: each of them takes the slot that is free first. Told
//! one by one, or, of many, by what they come to together.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// Microseconds, so that ends can be ordered.
type Micros = u64;

/// When the next task starts after tasks that hold their slot for `ahead` seconds each, in order.
/// `slots` are the seconds until each becomes free, 0 for one that is. `None` without slots.
pub(crate) fn start_after(
    slots: impl Iterator<Item = f64>,
    ahead: impl Iterator<Item = f64>,
) -> Option<Duration> {
    let mut free: BinaryHeap<Reverse<Micros>> = slots.map(|seconds| Reverse(micros(seconds))).collect();
    for seconds in ahead {
        let mut first = free.peek_mut()?;
        first.0 = first.0.saturating_add(micros(seconds));
    }
    free.peek().map(|first| Duration::from_micros(first.0))
}

/// The same of so many tasks that hold their slots for `work` seconds together, whatever their order:
/// they fill the slots evenly, and the first slot to be free is on average half a task below that.
/// Off by less than the longest of them; with one slot, by nothing.
pub(crate) fn start_after_all(slots: impl Iterator<Item = f64>, tasks: usize, work: f64) -> Option<Duration> {
    let mut slots: Vec<f64> = slots.collect();
    slots.sort_by(f64::total_cmp);
    let first = *slots.first()?;
    // How far the slots that get anything are filled: as many as are below it without the rest.
    let (mut filled, mut sum) = (0.0, work);
    for slot in &slots {
        if filled > 0.0 && sum / filled <= *slot {
            break;
        }
        (filled, sum) = (filled + 1.0, sum + slot);
    }
    let half_a_task = work / tasks.max(1) as f64 * (filled - 1.0) / (2.0 * filled);
    let start = (sum / filled - half_a_task).max(first);
    Some(Duration::from_micros(micros(start)))
}

fn micros(seconds: f64) -> Micros {
    (seconds.max(0.0) * 1e6) as Micros
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn start(slots: &[f64], ahead: &[f64]) -> Option<f64> {
        start_after(slots.iter().copied(), ahead.iter().copied()).map(|start| start.as_secs_f64())
    }

    #[test]
    fn each_task_takes_the_slot_that_is_free_first() {
        assert_eq!(start(&[0.0], &[]), Some(0.0));
        assert_eq!(start(&[2.0], &[3.0]), Some(5.0));
        assert_eq!(start(&[2.0, 0.0], &[10.0]), Some(2.0));
        assert_eq!(start(&[2.0, 0.0], &[10.0, 1.0, 1.0]), Some(4.0));
        assert_eq!(start(&[], &[1.0]), None);
    }
    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// ORCHD-ETA-005
        #[test]
        fn what_many_tasks_come_to_is_what_they_do_one_by_one_to_within_one_of_them(
            slots in proptest::collection::vec(0.0..60.0, 1..9),
            ahead in proptest::collection::vec(0.0..30.0, 1..300),
        ) {
            let plain = start(&slots, &ahead).unwrap();
            let work = ahead.iter().sum();
            let together = start_after_all(slots.iter().copied(), ahead.len(), work).unwrap().as_secs_f64();
            let longest = ahead.iter().copied().fold(0.0, f64::max);
            let bound = if slots.len() == 1 { 1e-3 } else { longest + 1e-3 };
            prop_assert!((plain - together).abs() <= bound, "{plain} one by one, {together} together");
        }
    }
}
