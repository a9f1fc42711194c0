//! How long to wait and how often to try, as a value, so that tests need not wait.

use std::time::{Duration, Instant};

use super::FetchError;
use crate::Cancel;

/// Waits and tries of the downloader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Tries without any progress before it gives up.
    pub tries: u32,
    /// The pause after the first failure; each further one is twice as long.
    pub first_pause: Duration,
    /// No pause is longer.
    pub longest_pause: Duration,
    /// A transfer without a byte for so long has stalled.
    pub stall: Duration,
    /// For finding a host and connecting to it.
    pub connect: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            tries: 5,
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(8),
            stall: Duration::from_secs(30),
            connect: Duration::from_secs(20),
        }
    }
}

const SLICE: Duration = Duration::from_millis(50);

impl Patience {
    /// The pause after `failures` in a row.
    fn pause_after(&self, failures: u32) -> Duration {
        let doubled = 1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        self.first_pause.saturating_mul(doubled).min(self.longest_pause)
    }

    /// Waits after `failures` in a row; ends early when someone asks to stop.
    pub(crate) fn pause(&self, failures: u32, cancel: &Cancel) -> Result<(), FetchError> {
        let until = Instant::now() + self.pause_after(failures);
        loop {
            if cancel.is_cancelled() {
                return Err(FetchError::Cancelled);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(SLICE));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_from_half_a_second_to_eight() {
        let patience = Patience::default();
        let pauses: Vec<_> = (1..=6).map(|n| patience.pause_after(n).as_millis()).collect();
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 8000]);
        assert_eq!(patience.pause_after(99).as_millis(), 8000);
    }
}
