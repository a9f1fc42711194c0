//! How long answers are: a histogram of what was seen, in which the old fades.
//!
//! An answer that its own limit cut off says only that it would have been longer. It counts among
//! those that got so far and among none that ended there; otherwise whoever asks without a limit
//! would be told the lengths of those who ask with one.

use serde::{Deserialize, Serialize};

/// Buckets per doubling; a length is known to about a fifth.
const PER_DOUBLING: f64 = 2.0;
/// Up to 2^20 tokens; longer ones count as that.
const BUCKETS: usize = 40;
/// What is left of a sample when the next one comes: a hundred answers count as much as all before.
const FADE: f64 = 0.99;
/// Below this a weight is nothing.
const NOTHING: f64 = 1e-6;

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Bucket {
    /// Answers that ended by themselves.
    pub(super) weight: f64,
    /// Their tokens.
    pub(super) tokens: f64,
    /// Answers that were cut off.
    #[serde(default)]
    pub(super) cut: f64,
}

/// The lengths of answers, in tokens.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Lengths {
    buckets: [Bucket; BUCKETS],
}

/// Answers of about one length that may be what one with a certain number of tokens is going to be.
#[derive(Debug, Clone, Copy)]
struct Likely {
    probability: f64,
    mean: f64,
    /// By how much it may be shorter or longer than that.
    around: f64,
}

impl Default for Lengths {
    fn default() -> Self {
        Self { buckets: [Bucket::default(); BUCKETS] }
    }
}

impl Lengths {
    /// An answer has so many tokens; `cut`: because it was allowed no more.
    pub(super) fn saw(&mut self, tokens: u64, cut: bool) {
        for bucket in &mut self.buckets {
            bucket.weight *= FADE;
            bucket.tokens *= FADE;
            bucket.cut *= FADE;
        }
        let tokens = tokens as f64;
        let bucket = (tokens.max(1.0).log2() * PER_DOUBLING) as usize;
        match self.buckets.get_mut(bucket.min(BUCKETS - 1)) {
            Some(bucket) if cut => bucket.cut += 1.0,
            Some(bucket) => {
                bucket.weight += 1.0;
                bucket.tokens += tokens;
            }
            None => {}
        }
    }

    /// For another process, up to the last that holds anything.
    pub(super) fn kept(&self) -> Vec<Bucket> {
        let used = |bucket: &Bucket| bucket.weight > 0.0 || bucket.cut > 0.0;
        let used = self.buckets.iter().rposition(used).map_or(0, |last| last + 1);
        self.buckets.iter().take(used).copied().collect()
    }

    pub(super) fn recall(&mut self, kept: &[Bucket]) {
        self.buckets.iter_mut().zip(kept).for_each(|(bucket, kept)| *bucket = *kept);
    }

    /// How many tokens are still to come of an answer that has `so_far` and may have `at_most`, on
    /// average. `None` when none as long as that was ever seen.
    pub(super) fn left(&self, so_far: f64, at_most: f64) -> Option<f64> {
        let likely = self.likely(so_far);
        (!likely.is_empty()).then(|| {
            let left = likely.iter().map(|one| one.probability * (one.mean.min(at_most) - so_far).max(0.0));
            left.sum()
        })
    }

    /// The same, not on average but of so many answers that are as unlike as answers are, the shortest
    /// first.
    pub(super) fn spread<const N: usize>(&self, so_far: f64, at_most: f64) -> Option<[f64; N]> {
        let likely = self.likely(so_far);
        let mut rest = likely.iter();
        let mut one = rest.next()?;
        let mut below = 0.0;
        Some(std::array::from_fn(|n| {
            let quantile = (n as f64 + 0.5) / N as f64;
            while quantile > below + one.probability
                && let Some(next) = rest.next()
            {
                below += one.probability;
                one = next;
            }
            let part = ((quantile - below) / one.probability.max(NOTHING)).clamp(0.0, 1.0);
            let tokens = one.mean + (2.0 * part - 1.0) * one.around;
            (tokens.min(at_most) - so_far).max(0.0)
        }))
    }

    /// What becomes of an answer that has `so_far`: from bucket to bucket, so many of those that get
    /// that far end there. Those that nothing is known of but that they were cut off, end there, too.
    fn likely(&self, so_far: f64) -> Vec<Likely> {
        let mut at_risk: f64 = self.buckets.iter().map(|bucket| bucket.weight + bucket.cut).sum();
        let mut alive = 1.0;
        let mut likely = Vec::with_capacity(BUCKETS);
        for (n, bucket) in self.buckets.iter().enumerate() {
            let here = at_risk;
            at_risk -= bucket.weight + bucket.cut;
            let (from, to) = (length(n), length(n + 1));
            let last = at_risk < NOTHING;
            if here < NOTHING || to <= so_far {
                continue;
            }
            let mean =
                if bucket.weight > NOTHING { bucket.tokens / bucket.weight } else { (from + to) / 2.0 };
            // Of what ended in this bucket, the part that is not passed by yet; of what was cut off in
            // it, half is taken to have been behind most of that.
            let part = ((to - so_far) / (to - from)).min(1.0);
            let passed_by = (1.0 - part) * bucket.weight;
            let among = (here - passed_by - bucket.cut / 2.0).max(NOTHING);
            let ends = if last { 1.0 } else { (part * bucket.weight / among).min(1.0) };
            let (from, mean) =
                if so_far > from { (so_far, mean.max((so_far + to) / 2.0)) } else { (from, mean) };
            // As far around the mean as the bucket goes to its nearer side.
            let around = (mean - from).min(to - mean).max(0.0);
            if ends > 0.0 {
                likely.push(Likely { probability: alive * ends, mean, around });
            }
            alive *= 1.0 - ends;
        }
        // What was passed by is not a possibility any more.
        let all: f64 = likely.iter().map(|one| one.probability).sum();
        likely.iter_mut().for_each(|one| one.probability /= all.max(NOTHING));
        likely
    }
}

/// Where a bucket begins, in tokens.
fn length(bucket: usize) -> f64 {
    (bucket as f64 / PER_DOUBLING).exp2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_of_what_was_seen_and_cut_at_what_is_allowed() {
        let mut lengths = Lengths::default();
        assert_eq!(lengths.left(0.0, 100.0), None);
        for _ in 0..50 {
            lengths.saw(40, false);
            lengths.saw(400, false);
        }
        let left = |so_far, at_most| lengths.left(so_far, at_most).unwrap();
        assert!((left(0.0, 1_000.0) - 220.0).abs() < 5.0);
        assert!((left(0.0, 100.0) - 70.0).abs() < 2.0);
        assert!((left(100.0, 1_000.0) - 300.0).abs() < 5.0, "one that passed 40 is one of the long ones");
    }

    #[test]
    fn what_was_long_ago_fades() {
        let mut lengths = Lengths::default();
        (0..500).for_each(|_| lengths.saw(1_000, false));
        (0..500).for_each(|_| lengths.saw(10, false));
        assert!(lengths.left(0.0, 1e6).unwrap() < 20.0);
    }

    /// ORCHD-ETA-006
    #[test]
    fn an_answer_that_was_cut_off_would_have_been_longer() {
        let mut lengths = Lengths::default();
        for _ in 0..100 {
            lengths.saw(50, false);
            lengths.saw(100, true);
            lengths.saw(50, false);
            lengths.saw(800, false);
        }
        // Two of four are short; the one that was cut off is like the others that got so far.
        let mean = lengths.left(0.0, 1e6).unwrap();
        assert!((mean - 425.0).abs() < 25.0, "{mean}");
        assert!((lengths.left(0.0, 100.0).unwrap() - 75.0).abs() < 4.0);
    }

    /// ORCHD-ETA-006
    #[test]
    fn answers_are_spread_as_they_were_seen() {
        let mut lengths = Lengths::default();
        assert_eq!(lengths.spread::<4>(0.0, 100.0), None);
        for _ in 0..100 {
            [10, 40, 160, 640].into_iter().for_each(|tokens| lengths.saw(tokens, false));
        }
        let spread = |so_far, at_most| lengths.spread::<4>(so_far, at_most).unwrap();
        for (tokens, seen) in spread(0.0, 1e6).into_iter().zip([10.0, 40.0, 160.0, 640.0]) {
            assert!((tokens / seen - 1.0).abs() < 0.2, "{tokens} for {seen}");
        }
        assert!(spread(0.0, 100.0).iter().all(|tokens| *tokens <= 100.0));
        assert!(spread(200.0, 1e6).iter().all(|tokens| (350.0..530.0).contains(tokens)), "only the longest");
    }
}
