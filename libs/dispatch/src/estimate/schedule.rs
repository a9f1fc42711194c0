//! When a task starts that has these before it: each of them takes the slot that is free first.

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

fn micros(seconds: f64) -> Micros {
    (seconds.max(0.0) * 1e6) as Micros
}

#[cfg(test)]
mod tests {
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
}
