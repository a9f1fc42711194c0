//! How long an engine may take to load: a pure budget. It grows with the size of the model once the
//! engine shows that it is loading, and goes on growing while bytes still arrive: a slow disk is not a
//! hang.

use std::time::Duration;

use crate::Timings;

/// The budget of one start.
#[derive(Debug)]
pub(crate) struct LoadingBudget {
    base: Duration,
    /// For a model of this size, from a disk as slow as is expected.
    sized: Duration,
    deadline: Duration,
    bytes: u64,
}

/// However slow the disk, not longer than so many times what its size allows.
const AT_MOST: u32 = 8;
/// Less than this between two looks is not a model that arrives.
const MOVED_BYTES: u64 = 1024 * 1024;

impl LoadingBudget {
    pub(crate) fn new(timings: &Timings, model_bytes: u64) -> Self {
        let seconds = model_bytes / timings.startup_bytes_per_second.max(1);
        Self {
            base: timings.startup_base,
            sized: timings.startup_base.saturating_add(Duration::from_secs(seconds)),
            deadline: timings.startup_base,
            bytes: 0,
        }
    }

    /// The engine says that it loads, `elapsed` after its start; `bytes` is what it has read and holds,
    /// where that can be seen.
    pub(crate) fn loading(&mut self, elapsed: Duration, bytes: Option<u64>) {
        self.deadline = self.deadline.max(self.sized);
        let Some(bytes) = bytes else { return };
        if bytes >= self.bytes.saturating_add(MOVED_BYTES) {
            self.bytes = bytes;
            let longest = self.sized.saturating_mul(AT_MOST);
            self.deadline = self.deadline.max(elapsed.saturating_add(self.base).min(longest));
        }
    }

    pub(crate) fn is_over(&self, elapsed: Duration) -> bool {
        elapsed >= self.deadline
    }

    /// How long the start may take, as far as is known now.
    pub(crate) fn allowed(&self) -> Duration {
        self.deadline
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn seconds(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    /// POOLD-READY-003
    #[test]
    fn an_engine_that_shows_nothing_has_a_minute_and_one_that_loads_what_its_model_needs() {
        let mut budget = LoadingBudget::new(&Timings::default(), 10 * GIB);
        assert!(!budget.is_over(seconds(59)) && budget.is_over(seconds(60)));
        budget.loading(seconds(1), None);
        assert_eq!(budget.allowed(), seconds(60 + 204));
    }

    /// POOLD-READY-003
    #[test]
    fn bytes_that_still_arrive_extend_it_and_bytes_that_do_not_end_it() {
        let mut budget = LoadingBudget::new(&Timings::default(), 10 * GIB);
        // 10 MiB a second: a fifth of what is expected of a disk.
        for s in 0..1000 {
            budget.loading(seconds(s), Some(s * 10 * 1024 * 1024));
            assert!(!budget.is_over(seconds(s)), "after {s} s");
        }
        let stuck = 1000 * 10 * 1024 * 1024;
        let end = (1000..).find(|s| {
            budget.loading(seconds(*s), Some(stuck));
            budget.is_over(seconds(*s))
        });
        assert_eq!(end, Some(1000 + 60));
    }

    /// POOLD-READY-003
    #[test]
    fn nothing_loads_for_ever() {
        let mut budget = LoadingBudget::new(&Timings::default(), 0);
        let end = (0..100_000).find(|s| {
            budget.loading(seconds(*s), Some(s * GIB));
            budget.is_over(seconds(*s))
        });
        assert_eq!(end, Some(480));
    }
}
