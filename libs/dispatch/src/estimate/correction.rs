//! What comes later and goes first: how much longer waits turn out than the queue of the moment
//! says, per class and caller.
//!
//! Nobody knows who will come, but a steady load repeats itself: a caller that others overtake
//! because it sends more than its share is overtaken again, and batch tasks are always. It is the
//! middle of what was seen, not the average, which a few long waits would carry.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use wire::task::Priority;

use crate::CallerId;

/// Callers that are told apart; of more, the class's middle is used.
const CALLERS: usize = 256;
/// What is left of a wait when the next one comes.
const FADE: f64 = 0.96;
/// So many waits are taken for granted to turn out as expected, so that one proves little.
const PRIOR: f64 = 4.0;
/// Waits below this are noise.
const WORTH_S: f64 = 0.5;
/// How far one wait may be off what was foretold, as a logarithm: about twelve times.
const FURTHEST: f64 = 2.5;

/// Real waits against foretold ones: the sum of their ratios' logarithms, in which the old fades.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Ratios {
    pub(super) logarithms: f64,
    pub(super) waits: f64,
}

impl Ratios {
    fn saw(&mut self, logarithm: f64) {
        self.logarithms = self.logarithms * FADE + logarithm;
        self.waits = self.waits * FADE + 1.0;
    }

    /// Their middle, where `prior` is expected.
    fn middle(self, prior: f64) -> f64 {
        (self.logarithms + PRIOR * prior) / (self.waits + PRIOR)
    }
}

/// How waits turn out.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Correction {
    classes: [Ratios; 2],
    callers: [HashMap<CallerId, Ratios>; 2],
}

impl Correction {
    /// A task waited for so many seconds of which so many were foretold without correction.
    pub(super) fn saw(&mut self, caller: &CallerId, priority: Priority, foretold: f64, waited: f64) {
        if foretold < WORTH_S && waited < WORTH_S {
            return;
        }
        let logarithm = ((waited + WORTH_S) / (foretold + WORTH_S)).ln().clamp(-FURTHEST, FURTHEST);
        self.classes[class(priority)].saw(logarithm);
        let callers = &mut self.callers[class(priority)];
        if callers.len() < CALLERS || callers.contains_key(caller) {
            callers.entry(caller.clone()).or_default().saw(logarithm);
        }
    }

    pub(super) fn classes(&self) -> [Ratios; 2] {
        self.classes
    }

    pub(super) fn recall(&mut self, classes: [Ratios; 2]) {
        self.classes = classes;
    }

    /// What a foretold wait is multiplied by.
    pub(super) fn factor(&self, caller: &CallerId, priority: Priority) -> f64 {
        let all = self.classes[class(priority)].middle(0.0);
        let own = self.callers[class(priority)].get(caller);
        own.map_or(all, |own| own.middle(all)).exp().clamp(0.25, 16.0)
    }
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
        for _ in 0..200 {
            correction.saw(&slow, Priority::Interactive, 10.0, 30.0);
            correction.saw(&fast, Priority::Interactive, 10.0, 10.0);
        }
        let factor = |caller| correction.factor(caller, Priority::Interactive);
        assert!((factor(&slow) - 2.8).abs() < 0.2 && (factor(&fast) - 1.0).abs() < 0.1, "{}", factor(&slow));
        assert!((factor(&new) - 3_f64.sqrt()).abs() < 0.2, "{}", factor(&new));
        assert!((correction.factor(&slow, Priority::Batch) - 1.0).abs() < 1e-9);
    }

    /// ORCHD-ETA-006
    #[test]
    fn one_wait_that_was_very_long_does_not_move_the_middle_far() {
        let caller = CallerId::key("a");
        let mut correction = Correction::default();
        (0..50).for_each(|_| correction.saw(&caller, Priority::Interactive, 10.0, 10.0));
        correction.saw(&caller, Priority::Interactive, 10.0, 100_000.0);
        assert!(correction.factor(&caller, Priority::Interactive) < 1.15);
    }
}
