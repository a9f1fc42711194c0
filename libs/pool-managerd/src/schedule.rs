//! When a lost engine starts again: a pure count of losses. It has no clock and rolls no dice; the
//! caller says how long the life served and brings the jitter.

use std::time::Duration;

use crate::RestartPolicy;

/// The losses of one replica.
#[derive(Debug, Clone)]
pub struct RestartSchedule {
    policy: RestartPolicy,
    /// In a row, mute lives twice.
    losses: u32,
    restarts: u32,
    trials: u32,
}

/// What to do after a loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Start again after this pause.
    Restart(Duration),
    /// The breaker is open: one trial after this pause.
    Trial(Duration),
}

impl RestartSchedule {
    /// No losses yet.
    #[must_use]
    pub fn new(policy: RestartPolicy) -> Self {
        Self { policy, losses: 0, restarts: 0, trials: 0 }
    }

    /// Counts a loss. `served` is how long the lost life was ready; becoming ready alone resets
    /// nothing, because an engine that loads slowly and dies at once must open the breaker too.
    /// `weight` is 2 for a life that was mute, else 1. `jitter` between 0 and 1 lengthens the pause by up
    /// to half.
    pub fn lost(&mut self, served: Duration, weight: u32, jitter: f64) -> Next {
        if served >= self.policy.stable_after {
            self.reset();
        }
        self.losses = self.losses.saturating_add(weight);
        let longer = |pause: Duration| pause.mul_f64(1.0 + 0.5 * jitter.clamp(0.0, 1.0));
        if self.losses < self.policy.open_after {
            self.restarts = self.restarts.saturating_add(1);
            Next::Restart(longer(nth(&self.policy.pauses, self.restarts - 1)))
        } else {
            self.trials = self.trials.saturating_add(1);
            Next::Trial(longer(nth(&self.policy.trials, self.trials - 1)))
        }
    }

    /// Losses in a row; a mute life is two.
    #[must_use]
    pub fn losses(&self) -> u32 {
        self.losses
    }

    /// Forgets all losses.
    pub fn reset(&mut self) {
        (self.losses, self.restarts, self.trials) = (0, 0, 0);
    }
}

/// The `n`-th pause, the last one for all beyond.
pub(crate) fn nth(pauses: &[Duration], n: u32) -> Duration {
    let n = usize::try_from(n).unwrap_or(usize::MAX);
    pauses.get(n).or(pauses.last()).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: Duration = Duration::ZERO;

    fn seconds(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    /// POOLD-RESTART-001
    #[test]
    fn restarts_come_at_once_and_then_ever_later_until_the_breaker_opens() {
        let policy = RestartPolicy::default();
        assert_eq!(
            policy.pauses.len() + 1,
            usize::try_from(policy.open_after).unwrap(),
            "each is waited once"
        );
        let mut schedule = RestartSchedule::new(policy);
        let pauses: Vec<Next> = (0..10).map(|_| schedule.lost(NEVER, 1, 0.0)).collect();
        let restarts = [0, 1, 2, 4, 8].map(|s| Next::Restart(seconds(s)));
        let trials = [60, 120, 240, 300, 300].map(|s| Next::Trial(seconds(s)));
        assert_eq!(pauses, [restarts, trials].concat());
    }

    #[test]
    fn an_engine_that_dies_at_once_for_ever_is_started_at_most_twelve_times_in_ten_minutes() {
        for jitter in [0.0, 0.5, 1.0] {
            let mut schedule = RestartSchedule::new(RestartPolicy::default());
            let (mut now, mut starts_in_10_s, mut starts_in_600_s) = (NEVER, 0, 0);
            while now < seconds(600) {
                starts_in_600_s += 1;
                starts_in_10_s += u32::from(now < seconds(10));
                now += match schedule.lost(NEVER, 1, jitter) {
                    Next::Restart(pause) | Next::Trial(pause) => pause,
                };
            }
            assert!((4..=5).contains(&starts_in_10_s), "{starts_in_10_s} at jitter {jitter}");
            assert!(starts_in_600_s <= 12, "{starts_in_600_s} at jitter {jitter}");
        }
    }

    /// POOLD-RESTART-002
    #[test]
    fn becoming_ready_for_a_moment_resets_nothing_and_ten_minutes_of_serving_do() {
        let mut schedule = RestartSchedule::new(RestartPolicy::default());
        for _ in 0..5 {
            schedule.lost(seconds(599), 1, 0.0);
        }
        assert_eq!(schedule.lost(seconds(599), 1, 0.0), Next::Trial(seconds(60)));
        assert_eq!(schedule.lost(seconds(600), 1, 0.0), Next::Restart(NEVER));
        assert_eq!(schedule.losses(), 1);
    }

    /// POOLD-RESTART-004
    #[test]
    fn three_mute_lives_open_the_breaker() {
        let mut schedule = RestartSchedule::new(RestartPolicy::default());
        let next: Vec<Next> = (0..4).map(|_| schedule.lost(NEVER, 2, 0.0)).collect();
        assert_eq!(schedule.losses(), 8, "each counts twice");
        let restarts = [0, 1].map(|s| Next::Restart(seconds(s)));
        assert_eq!(next, [restarts, [60, 120].map(|s| Next::Trial(seconds(s)))].concat());
    }

    #[test]
    fn jitter_lengthens_a_pause_by_at_most_half() {
        let mut schedule = RestartSchedule::new(RestartPolicy::default());
        schedule.lost(NEVER, 1, 1.0);
        assert_eq!(schedule.lost(NEVER, 1, 1.0), Next::Restart(Duration::from_millis(1500)));
        assert_eq!(schedule.lost(NEVER, 1, 7.0), Next::Restart(seconds(3)));
    }
}
