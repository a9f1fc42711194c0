//! Whether an engine that says it is healthy also works: a pure judgement over what `/slots` showed,
//! look by look. It has no clock and asks nobody.
//!
//! Two things are watched while any slot is busy. *Nothing moves*: neither a token nor a piece of a
//! prompt, for longer than the last piece of a prompt may take. *No token*: prompts are read but
//! nothing is ever generated. Both limits grow with the prompt that was read, so that a long prefill
//! is not a hang. The engine is judged as a whole: while one slot generates, none is given up.

use std::collections::HashMap;
use std::time::Duration;

use crate::timings::ProgressLimits;

/// So many prompt tokens may be under way unseen: an engine that computes may not answer, and
/// llama-server computes at most its `--batch-size` at a time, 2048 unless the pool says otherwise.
const UNSEEN_PROMPT_TOKENS: u32 = 2048;

/// One slot, as `/slots` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlotSeen {
    pub(crate) id: u32,
    pub(crate) busy: bool,
    /// Which request it works on, or worked on last.
    pub(crate) task: i64,
    /// Prompt tokens read for that request.
    pub(crate) processed: u32,
    /// Tokens generated for it.
    pub(crate) decoded: u32,
}

/// An engine that is busy and gets nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stall {
    /// For so long it was busy without a token.
    pub(crate) without_token: Duration,
    /// It has generated before, in this life.
    pub(crate) ever: bool,
    /// `/slots` itself is not answered.
    pub(crate) silent: bool,
}

/// The judgement over one life.
#[derive(Debug)]
pub(crate) struct Progress {
    limits: ProgressLimits,
    /// The end of a request counts as an answer: what is generated is not tokens.
    ends_count: bool,
    slots: HashMap<u32, Watched>,
    last: Option<Duration>,
    still: Clock,
    mute: Clock,
    ever: bool,
}

#[derive(Debug)]
struct Watched {
    seen: SlotSeen,
    /// When it was first seen with this request.
    since: Duration,
}

/// How long something has been missing while the engine was busy, and how long that is all right.
#[derive(Debug, Default)]
struct Clock {
    missing: Duration,
    /// So much of it while `/slots` was not answered.
    unseen: Duration,
    allowance: Duration,
}

/// What changed between two looks.
#[derive(Debug, Default)]
struct Moved {
    busy: bool,
    token: bool,
    prompt_tokens: u32,
}

impl Progress {
    /// `ends_count` for a pool of embeddings or ranks; `ever` for an engine that is known to have
    /// generated, as an adopted one.
    pub(crate) fn new(limits: ProgressLimits, ends_count: bool, ever: bool) -> Self {
        Self {
            limits,
            ends_count,
            slots: HashMap::new(),
            last: None,
            still: Clock::default(),
            mute: Clock::default(),
            ever,
        }
    }

    /// One look. `at` counts from any fixed moment and never goes back; `slots` is `None` when the
    /// engine did not answer in time, which means that it computes.
    pub(crate) fn look(&mut self, at: Duration, slots: Option<&[SlotSeen]>) -> Option<Stall> {
        // A manager that slept must not blame its engine.
        let passed = at.saturating_sub(self.last.unwrap_or(at)).min(self.limits.longest_step);
        self.last = Some(at);
        match slots {
            Some(slots) => {
                let moved = self.compare(at, slots);
                self.account(passed, &moved);
            }
            None => self.unseen(passed),
        }
        let (still, mute) = (self.still.is_over(&self.limits), self.mute.is_over(&self.limits));
        (still || mute).then_some(Stall {
            without_token: self.mute.missing,
            ever: self.ever,
            silent: slots.is_none(),
        })
    }

    fn compare(&mut self, at: Duration, slots: &[SlotSeen]) -> Moved {
        let mut moved = Moved::default();
        for &seen in slots {
            moved.busy |= seen.busy;
            let before = self.slots.get(&seen.id);
            let same = before.filter(|w| w.seen.busy && seen.busy && w.seen.task == seen.task);
            let (processed, decoded) = same.map_or((0, 0), |w| (w.seen.processed, w.seen.decoded));
            if seen.busy {
                moved.token |= seen.decoded > decoded;
                moved.prompt_tokens += seen.processed.saturating_sub(processed);
            }
            // Its count is gone with it. Clients give up on a mute engine late, so an early end is an answer.
            let ended = before.filter(|w| w.seen.busy && same.is_none());
            moved.token |=
                ended.is_some_and(|w| self.ends_count || at.saturating_sub(w.since) <= self.limits.early_end);
            let since = same.map_or(at, |w| w.since);
            self.slots.insert(seen.id, Watched { seen, since });
        }
        moved
    }

    fn account(&mut self, passed: Duration, moved: &Moved) {
        if !moved.busy || moved.token {
            self.ever |= moved.token;
            self.still = Clock::default();
            self.mute = Clock::default();
            return;
        }
        let reading = self.limits.for_prompt(moved.prompt_tokens);
        self.mute.missing += passed;
        self.mute.allowance = self.mute.allowance.saturating_add(reading);
        if moved.prompt_tokens > 0 {
            self.still = Clock { allowance: reading, ..Clock::default() };
        } else {
            self.still.missing += passed;
        }
    }

    fn unseen(&mut self, passed: Duration) {
        for clock in [&mut self.still, &mut self.mute] {
            clock.missing += passed;
            clock.unseen += passed;
        }
    }
}

impl Clock {
    /// What was not answered may have been the largest piece of a prompt. Once it is answered again and
    /// nothing has moved it was not, and excuses its own time alone: else one late answer on a busy machine
    /// would hide a mute engine for minutes.
    fn is_over(&self, limits: &ProgressLimits) -> bool {
        let seen = self.missing.saturating_sub(self.unseen);
        let piece = limits.for_prompt(UNSEEN_PROMPT_TOKENS);
        seen > limits.token.saturating_add(self.allowance)
            || self.missing > limits.token.saturating_add(self.allowance.max(piece))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn slot(task: i64, processed: u32, decoded: u32) -> SlotSeen {
        SlotSeen { id: 0, busy: true, task, processed, decoded }
    }

    fn idle() -> SlotSeen {
        SlotSeen { busy: false, ..slot(0, 0, 0) }
    }

    /// Looks once a second; the second at which it was given up.
    fn given_up(
        ends_count: bool,
        seconds: u32,
        look: impl Fn(u32) -> Option<SlotSeen>,
    ) -> Option<(u32, Stall)> {
        let mut progress = Progress::new(ProgressLimits::default(), ends_count, false);
        (0..seconds).find_map(|s| {
            let slots = look(s).map(|slot| [slot]);
            Some((s, progress.look(SECOND * s, slots.as_ref().map(<[_; 1]>::as_slice))?))
        })
    }

    /// POOLD-PROBE-002
    #[test]
    fn a_token_every_8_seconds_after_a_prefill_of_20_is_slow_and_not_hung() {
        let slow = |s: u32| Some(slot(1, 100, s.saturating_sub(20) / 8));
        assert_eq!(given_up(false, 600, slow), None);
    }

    /// POOLD-PROBE-002
    #[test]
    fn a_long_prefill_is_no_hang_whether_it_is_seen_or_not() {
        let by_batches = |s: u32| Some(slot(1, s / 60 * 512, 0));
        assert_eq!(given_up(false, 3600, by_batches), None, "512 tokens a minute");
        let unseen = |s: u32| (!(2..=400).contains(&s)).then(|| slot(1, 2048, u32::from(s > 400)));
        assert_eq!(given_up(false, 402, unseen), None, "one batch in 400 s, and no answer meanwhile");
    }

    /// POOLD-PROBE-003
    #[test]
    fn an_engine_that_never_generates_is_mute_and_one_that_stopped_is_not() {
        let (after, stall) = given_up(false, 600, |_| Some(slot(1, 10, 0))).unwrap();
        assert!((60..=70).contains(&after), "{after}");
        assert!(!stall.ever && !stall.silent);
        let (after, stall) = given_up(false, 600, |s| Some(slot(1, 10, s.min(5)))).unwrap();
        assert!((65..=70).contains(&after), "{after}");
        assert!(stall.ever);
        let (after, stall) = given_up(false, 3600, |s| (s == 0).then(idle)).unwrap();
        assert!((400..=500).contains(&after), "{after}");
        assert!(stall.silent);
    }

    /// POOLD-PROBE-003
    #[test]
    fn answers_that_do_not_come_in_time_excuse_a_mute_engine_for_no_longer_than_they_lasted() {
        for (every, limit) in [(5, 80), (2, 130)] {
            let now_and_then = |s: u32| (s % every != 1).then(|| slot(1, 10, 0));
            let (after, stall) = given_up(false, 600, now_and_then).unwrap();
            assert!((60..=limit).contains(&after), "every {every}: {after}");
            assert!(!stall.ever);
        }
        // Hardly ever seen, and never with more than before.
        let (after, _) = given_up(false, 3600, |s| (s % 100 == 0).then(|| slot(1, 10, 0))).unwrap();
        assert!((400..=500).contains(&after), "{after}");
    }

    /// POOLD-PROBE-003
    #[test]
    fn clients_that_give_up_and_come_again_do_not_hide_a_mute_engine() {
        let (after, stall) = given_up(false, 3600, |s| Some(slot(i64::from(s / 30), 20, 0))).unwrap();
        assert!(after < 120, "{after}");
        assert!(!stall.ever);
    }

    #[test]
    fn short_answers_and_embeddings_leave_no_count_and_are_answers_all_the_same() {
        assert_eq!(given_up(false, 3600, |s| Some(slot(i64::from(s), 0, 0))), None);
        assert_eq!(given_up(true, 3600, |s| Some(slot(i64::from(s / 40), 1, 0))), None);
        assert_eq!(given_up(false, 3600, |_| Some(idle())), None, "an idle engine owes nothing");
    }

    #[test]
    fn a_manager_that_slept_blames_nobody() {
        let mut progress = Progress::new(ProgressLimits::default(), false, true);
        for look in 0..8 {
            let at = Duration::from_hours(look);
            assert_eq!(progress.look(at, Some(&[slot(1, 1, 1)])), None);
        }
    }

    fn seeded() -> ProptestConfig {
        ProptestConfig {
            cases: 10_000,
            rng_seed: prop::test_runner::RngSeed::Fixed(4),
            failure_persistence: None,
            ..ProptestConfig::default()
        }
    }

    proptest! {
        #![proptest_config(seeded())]

        /// POOLD-PROBE-002
        #[test]
        fn no_engine_is_given_up_that_generates_within_the_limit(
            gaps in prop::collection::vec(1_u64..=60, 1..40),
            unanswered in prop::collection::vec(any::<bool>(), 64),
        ) {
            let mut progress = Progress::new(ProgressLimits::default(), false, false);
            let (mut at, mut decoded) = (Duration::ZERO, 0);
            progress.look(at, Some(&[slot(1, 5, decoded)]));
            for gap in gaps {
                for second in 0..gap {
                    at += SECOND;
                    let silent = unanswered[usize::try_from(second).unwrap()];
                    decoded += u32::from(second + 1 == gap);
                    let seen = [slot(1, 5, decoded)];
                    let shown = (!silent || second + 1 == gap).then_some(seen.as_slice());
                    prop_assert_eq!(progress.look(at, shown), None);
                }
            }
        }

        /// POOLD-PROBE-003
        #[test]
        fn every_engine_that_stops_generating_is_given_up_within_what_its_prompt_allows(
            before in 0_u32..50,
            prompt in 1_u32..4096,
            slots in 1_u32..4,
        ) {
            let limits = ProgressLimits::default();
            let mut progress = Progress::new(limits, false, false);
            let budget = limits.token + limits.for_prompt(prompt * slots) + SECOND * 2;
            let seen: Vec<SlotSeen> =
                (0..slots).map(|id| SlotSeen { id, ..slot(1, prompt, before) }).collect();
            let mut at = Duration::ZERO;
            while progress.look(at, Some(&seen)).is_none() {
                at += SECOND;
                prop_assert!(at <= budget, "not after {budget:?}");
            }
        }
    }
}
