//! How fast a pool drains: the measured time a task holds a slot, and what follows from it.

use std::time::Duration;

/// Weight of the newest service time. A fifth follows a change of load within about ten tasks and
/// is not thrown by one.
const NEWEST: f64 = 0.2;

/// A moving average of service times; empty until the first.
#[derive(Debug, Default)]
pub(crate) struct Rate {
    service_s: Option<f64>,
}

impl Rate {
    pub(crate) fn served(&mut self, held: Duration) {
        let held = held.as_secs_f64();
        self.service_s = Some(self.service_s.map_or(held, |before| before + NEWEST * (held - before)));
    }

    /// When a task with `ahead` tasks before it starts, with `free` of `slots` slots free. `None`
    /// while nothing was measured or no engine is up: an invented number would be worse.
    pub(crate) fn predicted_start(&self, ahead: u32, slots: u32, free: u32) -> Option<Duration> {
        let service = self.service_s?;
        if slots == 0 {
            return None;
        }
        let departures = (ahead + 1).saturating_sub(free);
        Some(Duration::from_secs_f64(service * f64::from(departures) / f64::from(slots)))
    }

    /// When a place in a full queue is likely: the time in which an eighth of it drains, because
    /// the clients that were turned away together come back together. Whole seconds, 1 to `max`.
    pub(crate) fn retry_after(
        &self,
        capacity: u32,
        slots: u32,
        unmeasured: Duration,
        max: Duration,
    ) -> Duration {
        let wait = match self.service_s {
            Some(service) if slots > 0 => service * f64::from(capacity.div_ceil(8).max(1)) / f64::from(slots),
            _ => unmeasured.as_secs_f64(),
        };
        Duration::from_secs_f64(wait.ceil().clamp(1.0, max.as_secs_f64().max(1.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNMEASURED: Duration = Duration::from_secs(5);
    const MAX: Duration = Duration::from_secs(120);

    #[test]
    fn nothing_is_predicted_before_something_was_measured() {
        let rate = Rate::default();
        assert_eq!(rate.predicted_start(3, 1, 0), None);
        assert_eq!(rate.retry_after(8, 1, UNMEASURED, MAX), UNMEASURED);
    }

    #[test]
    fn the_wait_follows_from_service_time_slots_and_place() {
        let mut rate = Rate::default();
        rate.served(Duration::from_secs(4));
        assert_eq!(rate.predicted_start(0, 2, 1), Some(Duration::ZERO));
        assert_eq!(rate.predicted_start(0, 2, 0), Some(Duration::from_secs(2)));
        assert_eq!(rate.predicted_start(3, 2, 0), Some(Duration::from_secs(8)));
        assert_eq!(rate.predicted_start(3, 0, 0), None);
    }

    #[test]
    fn retry_after_stays_within_its_bounds() {
        let mut rate = Rate::default();
        rate.served(Duration::from_millis(1));
        assert_eq!(rate.retry_after(1, 4, UNMEASURED, MAX), Duration::from_secs(1));
        rate.served(Duration::from_secs(100_000));
        assert_eq!(rate.retry_after(256, 1, UNMEASURED, MAX), MAX);
    }
}
