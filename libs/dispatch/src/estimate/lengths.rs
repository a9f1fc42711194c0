//! How long answers are: a histogram of what was seen, in which the old fades.

use serde::{Deserialize, Serialize};

/// Buckets per doubling; a length is known to about a fifth.
const PER_DOUBLING: f64 = 2.0;
/// Up to 2^20 tokens; longer ones count as that.
const BUCKETS: usize = 40;
/// What is left of a sample when the next one comes: a hundred answers count as much as all before.
const FADE: f64 = 0.99;

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Bucket {
    pub(super) weight: f64,
    pub(super) tokens: f64,
}

/// The lengths of answers, in tokens.
#[derive(Debug)]
pub(super) struct Lengths {
    buckets: [Bucket; BUCKETS],
}

impl Default for Lengths {
    fn default() -> Self {
        Self { buckets: [Bucket::default(); BUCKETS] }
    }
}

impl Lengths {
    pub(super) fn saw(&mut self, tokens: u64) {
        for bucket in &mut self.buckets {
            bucket.weight *= FADE;
            bucket.tokens *= FADE;
        }
        let tokens = tokens as f64;
        let bucket = (tokens.max(1.0).log2() * PER_DOUBLING) as usize;
        if let Some(bucket) = self.buckets.get_mut(bucket.min(BUCKETS - 1)) {
            bucket.weight += 1.0;
            bucket.tokens += tokens;
        }
    }

    /// For another process, up to the last that holds anything.
    pub(super) fn kept(&self) -> Vec<Bucket> {
        let used = self.buckets.iter().rposition(|bucket| bucket.weight > 0.0).map_or(0, |last| last + 1);
        self.buckets.iter().take(used).copied().collect()
    }

    pub(super) fn recall(&mut self, kept: &[Bucket]) {
        self.buckets.iter_mut().zip(kept).for_each(|(bucket, kept)| *bucket = *kept);
    }

    /// How many tokens are still to come of an answer that has `so_far` and may have `at_most`, on
    /// average. `None` when none as long as that was ever seen.
    pub(super) fn left(&self, so_far: f64, at_most: f64) -> Option<f64> {
        let longer = self.buckets.iter().filter_map(|bucket| {
            let mean = bucket.tokens / bucket.weight;
            (bucket.weight > 1e-6 && mean > so_far).then_some((bucket.weight, mean.min(at_most) - so_far))
        });
        let (weight, tokens) =
            longer.fold((0.0, 0.0), |(w, t), (weight, left)| (w + weight, t + weight * left));
        (weight > 0.0).then(|| (tokens / weight).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_of_what_was_seen_and_cut_at_what_is_allowed() {
        let mut lengths = Lengths::default();
        assert_eq!(lengths.left(0.0, 100.0), None);
        for _ in 0..50 {
            lengths.saw(40);
            lengths.saw(400);
        }
        let left = |so_far, at_most| lengths.left(so_far, at_most).unwrap();
        assert!((left(0.0, 1_000.0) - 220.0).abs() < 5.0);
        assert!((left(0.0, 100.0) - 70.0).abs() < 2.0);
        assert!((left(100.0, 1_000.0) - 300.0).abs() < 5.0, "one that passed 40 is one of the long ones");
    }

    #[test]
    fn what_was_long_ago_fades() {
        let mut lengths = Lengths::default();
        (0..500).for_each(|_| lengths.saw(1_000));
        (0..500).for_each(|_| lengths.saw(10));
        assert!(lengths.left(0.0, 1e6).unwrap() < 20.0);
    }
}
