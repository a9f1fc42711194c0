//! What comes later and goes first: how much longer waits turn out than the queue of the moment
//! says, per class and caller.
//!
//! Nobody knows who will come, but a steady load repeats itself: a caller that others overtake
//! because it sends more than its share is overtaken again, and batch tasks are always.

use std::collections::HashMap;

use wire::task::Priority;

use super::Ratio;
use crate::CallerId;

/// Callers that are told apart; of more, the class's mean is used.
const CALLERS: usize = 256;
/// Seconds that are taken for granted to turn out as foretold, so that one wait proves little.
const PRIOR_S: f64 = 5.0;
/// Waits below this are noise.
const WORTH_S: f64 = 0.5;

/// Real waits against foretold ones.
#[derive(Debug, Default)]
pub(super) struct Correction {
    classes: [Ratio; 2],
    callers: [HashMap<CallerId, Ratio>; 2],
}

impl Correction {
    /// A task waited for so many seconds of which so many were foretold without correction.
    pub(super) fn saw(&mut self, caller: &CallerId, priority: Priority, foretold: f64, waited: f64) {
        if foretold < WORTH_S && waited < WORTH_S {
            return;
        }
        self.classes[class(priority)].saw(waited, foretold);
        let callers = &mut self.callers[class(priority)];
        if callers.len() < CALLERS || callers.contains_key(caller) {
            callers.entry(caller.clone()).or_default().saw(waited, foretold);
        }
    }

    pub(super) fn classes(&self) -> [Ratio; 2] {
        self.classes
    }

    pub(super) fn recall(&mut self, classes: [Ratio; 2]) {
        self.classes = classes;
    }

    /// What a foretold wait is multiplied by.
    pub(super) fn factor(&self, caller: &CallerId, priority: Priority) -> f64 {
        let all = damped(self.classes[class(priority)], 1.0);
        self.callers[class(priority)].get(caller).map_or(all, |own| damped(*own, all)).clamp(0.25, 16.0)
    }
}

fn damped(ratio: Ratio, prior: f64) -> f64 {
    (ratio.above + PRIOR_S * prior) / (ratio.below + PRIOR_S)
}

pub(super) fn class(priority: Priority) -> usize {
    match priority {
        Priority::Interactive => 0,
        Priority::Batch => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ORCHD-ETA-001
    #[test]
    fn who_is_always_overtaken_is_told_so_and_others_are_not() {
        let (slow, fast, new) = (CallerId::key("slow"), CallerId::key("fast"), CallerId::key("new"));
        let mut correction = Correction::default();
        assert!((correction.factor(&slow, Priority::Interactive) - 1.0).abs() < 1e-9);
        for _ in 0..50 {
            correction.saw(&slow, Priority::Interactive, 10.0, 30.0);
            correction.saw(&fast, Priority::Interactive, 10.0, 10.0);
        }
        let factor = |caller| correction.factor(caller, Priority::Interactive);
        assert!((factor(&slow) - 3.0).abs() < 0.1 && (factor(&fast) - 1.0).abs() < 0.1);
        assert!((factor(&new) - 2.0).abs() < 0.2);
        assert!((correction.factor(&slow, Priority::Batch) - 1.0).abs() < 1e-9);
    }
}
