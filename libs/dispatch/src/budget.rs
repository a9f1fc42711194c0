//! How many tasks a pool tries again whose engine was lost, or reported an error, before their first token.
//! Each may be tried so often; a pool that loses every task would still be given each of them that many
//! times, just when it can bear that least. So all of them together have a budget. An error may be the
//! request's own: at most half of the budget, rounded up, goes to errors, so that nobody's bad requests use
//! it up for everybody. Pure: it is told the time.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;
use wire::config::RetryConfig;

/// What happens is counted by the second, so that much is small however much happens.
const STEP: Duration = Duration::from_secs(1);

/// Why a task is to be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Its engine was lost.
    Loss,
    /// Its engine reported an error.
    Fault,
}

#[derive(Debug, Clone)]
pub(crate) struct Budget {
    /// How often one task may be tried again.
    tries: u64,
    floor: u64,
    percent: u64,
    /// Steps for which what happened counts: a window, and the one that it began in.
    counts_for: u64,
    began: Instant,
    /// Those of late in which something happened, in order.
    steps: VecDeque<Step>,
}

#[derive(Debug, Clone, Default)]
struct Step {
    number: u64,
    started: u64,
    tried_again: u64,
    /// How many of those after an error.
    after_faults: u64,
    /// The most that ran at once.
    at_once: u64,
}

impl Budget {
    pub(crate) fn new(config: &RetryConfig, now: Instant) -> Self {
        Self {
            tries: config.per_task.into(),
            floor: config.at_least.into(),
            percent: config.percent.into(),
            counts_for: steps(Duration::from_millis(config.window_ms)) + 1,
            began: now,
            steps: VecDeque::new(),
        }
    }

    /// A task has started for the first time.
    pub(crate) fn started(&mut self, now: Instant) {
        self.step(now).started += 1;
    }

    /// So many have a slot.
    pub(crate) fn run(&mut self, at_once: usize, now: Instant) {
        let step = self.step(now);
        step.at_once = step.at_once.max(at_once as u64);
    }

    /// Takes one try from the budget. When it is spent, says after which time it is not any more if nothing
    /// else happens.
    pub(crate) fn try_again(&mut self, cause: Cause, now: Instant) -> Result<(), Duration> {
        self.step(now);
        let fewest = self.fewest_gone(cause);
        if fewest == Some(0) {
            let step = self.step(now);
            step.tried_again += 1;
            step.after_faults += u64::from(cause == Cause::Fault);
            return Ok(());
        }
        let enough = fewest.unwrap_or(self.steps.len());
        let last = self.steps.get(enough.saturating_sub(1)).map_or(0, |step| step.number);
        let until = STEP.saturating_mul(u32::try_from(last + self.counts_for).unwrap_or(u32::MAX));
        Err(until.saturating_sub(now.saturating_duration_since(self.began)))
    }

    /// How many of the oldest steps must not count any more for something to be left. None: that takes more
    /// than time.
    fn fewest_gone(&self, cause: Cause) -> Option<usize> {
        let mut sum = Step::default();
        let mut fewest = self.allows(cause, &sum).then_some(self.steps.len());
        for (gone, step) in self.steps.iter().enumerate().rev() {
            sum.started += step.started;
            sum.tried_again += step.tried_again;
            sum.after_faults += step.after_faults;
            sum.at_once = sum.at_once.max(step.at_once);
            if self.allows(cause, &sum) {
                fewest = Some(gone);
            }
        }
        fewest
    }

    /// Whether there is something left when so much counts.
    fn allows(&self, cause: Cause, counts: &Step) -> bool {
        // One loss of everything that ran costs nobody anything, however often each is tried.
        let all = (counts.started * self.percent / 100).max(self.floor).max(counts.at_once * self.tries);
        counts.tried_again < all && (cause == Cause::Loss || counts.after_faults < all.div_ceil(2))
    }

    /// The step that is now; what is older than the window goes.
    fn step(&mut self, now: Instant) -> &mut Step {
        // A clock that was read before another's reading is as late as that one.
        let last = self.steps.back().map_or(0, |step| step.number);
        let number = steps(now.saturating_duration_since(self.began)).max(last);
        while self.steps.front().is_some_and(|step| step.number + self.counts_for <= number) {
            self.steps.pop_front();
        }
        if self.steps.back().is_none_or(|step| step.number < number) {
            self.steps.push_back(Step { number, ..Step::default() });
        }
        let at = self.steps.len() - 1;
        &mut self.steps[at]
    }
}

fn steps(time: Duration) -> u64 {
    time.as_secs() / STEP.as_secs()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn config() -> RetryConfig {
        RetryConfig { per_task: 2, at_least: 10, percent: 20, window_ms: 60_000 }
    }

    /// How many are tried again if all that could be are.
    fn spend(budget: &mut Budget, cause: Cause, now: Instant) -> u64 {
        let mut tried = 0;
        while budget.try_again(cause, now).is_ok() {
            tried += 1;
        }
        tried
    }

    /// ORCHD-GATE-004
    #[test]
    fn a_budget_is_ten_a_fifth_of_what_started_or_all_that_ran_as_often_as_each_may() {
        let now = Instant::now();
        let spent = |started: u64, at_once: usize| {
            let mut budget = Budget::new(&config(), now);
            (0..started).for_each(|_| budget.started(now));
            budget.run(at_once, now);
            spend(&mut budget, Cause::Loss, now)
        };
        assert_eq!([spent(0, 0), spent(54, 5), spent(100, 5), spent(100, 16)], [10, 10, 20, 32]);
    }

    /// ORCHD-GATE-004: what counted is forgotten with its minute, and not before.
    #[test]
    fn a_budget_comes_back_when_it_says_so() {
        let began = Instant::now();
        let mut budget = Budget::new(&config(), began);
        assert_eq!(spend(&mut budget, Cause::Loss, began), 10);
        let later = began + Duration::from_millis(30_250);
        assert_eq!(budget.try_again(Cause::Loss, later), Err(Duration::from_millis(30_750)));
        assert_eq!(spend(&mut budget, Cause::Loss, began + MINUTE), 0);
        assert_eq!(spend(&mut budget, Cause::Loss, later + Duration::from_millis(30_750)), 10);
    }

    /// ORCHD-GATE-004
    #[test]
    fn errors_leave_half_of_it_to_losses_and_losses_leave_them_nothing() {
        let began = Instant::now();
        let mut budget = Budget::new(&config(), began);
        assert_eq!(spend(&mut budget, Cause::Fault, began), 5);
        assert_eq!(budget.try_again(Cause::Fault, began), Err(MINUTE + STEP));
        assert_eq!(spend(&mut budget, Cause::Loss, began), 5);
        let mut budget = Budget::new(&config(), began);
        assert_eq!(spend(&mut budget, Cause::Loss, began), 10);
        assert_eq!(spend(&mut budget, Cause::Fault, began), 0);
    }

    /// ORCHD-GATE-004
    #[test]
    fn the_numbers_are_those_of_the_configuration() {
        let now = Instant::now();
        let config = RetryConfig { per_task: 3, at_least: 1, percent: 50, window_ms: 5_000 };
        let mut budget = Budget::new(&config, now);
        assert_eq!(spend(&mut budget, Cause::Loss, now), 1);
        budget.run(2, now);
        assert_eq!(spend(&mut budget, Cause::Loss, now), 5);
        (0..20).for_each(|_| budget.started(now));
        assert_eq!(spend(&mut budget, Cause::Loss, now), 4);
        assert_eq!(budget.try_again(Cause::Loss, now), Err(Duration::from_secs(6)));
    }

    #[derive(Debug, Clone, Copy)]
    enum Happens {
        Start,
        Run(usize),
        Retry(Cause),
    }

    fn happens() -> impl Strategy<Value = Happens> {
        prop_oneof![
            4 => Just(Happens::Start),
            1 => (0_usize..12).prop_map(Happens::Run),
            3 => Just(Happens::Retry(Cause::Loss)),
            2 => Just(Happens::Retry(Cause::Fault)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        /// ORCHD-GATE-004
        #[test]
        fn no_minute_holds_more_than_its_budget_and_a_wait_that_is_told_is_enough(
            events in prop::collection::vec((0_u64..3_000, happens()), 1..400),
        ) {
            let began = Instant::now();
            let mut budget = Budget::new(&config(), began);
            let (mut now, mut started, mut ran) = (began, vec![], vec![]);
            let mut tried = Vec::<(Instant, Cause)>::new();
            for (after, what) in events {
                now += Duration::from_millis(after);
                let late = |then: &Instant, window: Duration| *then + window > now;
                match what {
                    Happens::Start => {
                        budget.started(now);
                        started.push(now);
                    }
                    Happens::Run(at_once) => {
                        budget.run(at_once, now);
                        ran.push((now, at_once as u64));
                    }
                    Happens::Retry(cause) => {
                        let of = |window: Duration| {
                            let starts = started.iter().filter(|then| late(then, window)).count() as u64;
                            let most = ran.iter().filter(|(then, _)| late(then, window)).map(|(_, n)| *n).max();
                            (starts / 5).max(10).max(2 * most.unwrap_or(0))
                        };
                        let of_tried = |window| tried.iter().filter(|(then, _)| late(then, window)).count() as u64;
                        let of_faults = |window| {
                            let counts = |(then, why): &&(Instant, Cause)| late(then, window) && *why == Cause::Fault;
                            tried.iter().filter(counts).count() as u64
                        };
                        let half = |all: u64| all.div_ceil(2);
                        // By the second: what is up to a second older than the window may count.
                        let (least, most) = (MINUTE, MINUTE + STEP);
                        match budget.try_again(cause, now) {
                            Ok(()) => {
                                prop_assert!(of_tried(least) < of(most));
                                prop_assert!(cause == Cause::Loss || of_faults(least) < half(of(most)));
                                tried.push((now, cause));
                            }
                            Err(wait) => {
                                let of_it = of_tried(most) >= of(least);
                                prop_assert!(of_it || cause == Cause::Fault && of_faults(most) >= half(of(least)));
                                prop_assert!(!wait.is_zero() && wait <= most, "{wait:?}");
                                let later = budget.clone().try_again(cause, now + wait);
                                prop_assert!(later.is_ok(), "after {wait:?}");
                            }
                        }
                    }
                }
                prop_assert!(budget.steps.len() as u64 <= MINUTE.as_secs() + 1, "it stays small");
            }
        }
    }
}
