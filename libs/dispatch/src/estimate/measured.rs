//! What was measured of a pool, for the process after this one: without it the first callers after a
//! restart would be told nothing of when they start. It says nothing of how fresh it is, so nobody is
//! refused by it; and callers' own corrections are not in it, which a few waits bring back.

use serde::{Deserialize, Serialize};

use super::correction::Ratios;
use super::lengths::Bucket;
use super::{Estimator, Ratio};

/// The measurements of one pool. Written and read as JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    seen: u32,
    per_token_in: Ratio,
    per_token_out: Ratio,
    bytes_per_token: Ratio,
    /// Of interactive and of batch tasks.
    lengths: [Vec<Bucket>; 2],
    /// Likewise, how waits turned out.
    #[serde(default)]
    waits: [Ratios; 2],
}

impl Estimator {
    /// What there is to keep.
    pub(crate) fn measured(&self) -> Option<Measured> {
        (self.seen > 0).then(|| Measured {
            seen: self.seen,
            per_token_in: self.per_token_in,
            per_token_out: self.per_token_out,
            bytes_per_token: self.bytes_per_token,
            lengths: [self.lengths[0].kept(), self.lengths[1].kept()],
            waits: self.correction.classes(),
        })
    }

    /// Begins with what an earlier process has measured, unless something was measured by this one.
    pub(crate) fn recall(&mut self, measured: Measured) {
        if self.seen > 0 || !measured.is_sound() {
            return;
        }
        self.seen = measured.seen;
        self.per_token_in = measured.per_token_in;
        self.per_token_out = measured.per_token_out;
        self.bytes_per_token = measured.bytes_per_token;
        for (lengths, kept) in self.lengths.iter_mut().zip(measured.lengths) {
            lengths.recall(&kept);
        }
        self.correction.recall(measured.waits);
    }
}

impl Measured {
    /// A file may hold anything, and every estimate would come of it.
    fn is_sound(&self) -> bool {
        let ratios = [self.per_token_in, self.per_token_out, self.bytes_per_token].into_iter();
        let ratios = ratios.flat_map(|ratio| [ratio.above, ratio.below]);
        let buckets = self.lengths.iter().flatten();
        let buckets = buckets.flat_map(|bucket| [bucket.weight, bucket.tokens, bucket.cut]);
        let waits = self.waits.map(|ratios| ratios.waits);
        let finite = self.waits.iter().all(|ratios| ratios.logarithms.is_finite());
        finite && ratios.chain(buckets).chain(waits).all(|number| number.is_finite() && number >= 0.0)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;
    use wire::task::Priority;

    use super::*;
    use crate::CallerId;
    use crate::estimate::{Asked, Served};
    use crate::size::Size;

    fn lived() -> Estimator {
        let mut estimator = Estimator::default();
        let now = Instant::now();
        for n in 1..20 {
            let served = Served {
                priority: if n % 3 == 0 { Priority::Batch } else { Priority::Interactive },
                bytes: 300 + n,
                size: Size { tokens_in: 100, tokens_out: 10 * n as u64 },
                cut: n % 4 == 0,
                to_first: Duration::from_millis(100),
                total: Duration::from_millis(100 + 90 * n as u64),
            };
            estimator.served(&served, now);
            let (told, waited) = (Duration::from_secs(4), Duration::from_secs(6));
            estimator.started(&CallerId::key("a"), Priority::Interactive, told, waited);
        }
        estimator
    }

    /// ORCHD-ETA-004
    #[test]
    fn what_is_written_and_read_again_estimates_the_same_and_refuses_nobody() {
        let before = lived();
        let text = serde_json::to_string(&before.measured().unwrap()).unwrap();
        let mut after = Estimator::default();
        after.recall(serde_json::from_str(&text).unwrap());
        // A number's text is read to within its last digit.
        let same = |one: f64, other: f64| (one - other).abs() <= 1e-9 * one.abs();
        let size = Size { tokens_in: 70, tokens_out: 80 };
        assert!(same(after.service(size).unwrap(), before.service(size).unwrap()));
        for priority in [Priority::Interactive, Priority::Batch] {
            let asked = Asked { priority, bytes: 900, tokens_in: None, cached: true, at_most: None };
            assert_eq!(after.expect(&asked), before.expect(&asked));
            let start = Duration::from_secs(10);
            let somebody = CallerId::key("b");
            let corrected =
                |estimator: &Estimator| estimator.corrected(&somebody, priority, start).as_secs_f64();
            assert!(same(corrected(&after), corrected(&before)));
        }
        assert!(before.may_refuse(Instant::now()) && !after.may_refuse(Instant::now()));
    }

    #[test]
    fn numbers_that_nothing_measured_and_what_is_older_than_our_own_are_not_taken() {
        let good = lived().measured().unwrap();
        let mut own = lived();
        own.served(
            &Served {
                priority: Priority::Batch,
                bytes: 1,
                size: Size { tokens_in: 1, tokens_out: 1 },
                cut: false,
                to_first: Duration::from_secs(1),
                total: Duration::from_secs(1),
            },
            Instant::now(),
        );
        let kept = own.measured();
        own.recall(good.clone());
        assert_eq!(own.measured(), kept);
        for bad in [-1.0, f64::NAN, f64::INFINITY] {
            let mut estimator = Estimator::default();
            let ratio = Ratio { above: bad, below: 1.0 };
            estimator.recall(Measured { per_token_in: ratio, ..good.clone() });
            assert_eq!(estimator.measured(), None, "{bad}");
        }
        let mut longer = good.clone();
        longer.lengths[0].extend(vec![Bucket::default(); 100]);
        let mut estimator = Estimator::default();
        estimator.recall(longer);
        assert_eq!(estimator.measured(), Some(good), "buckets that we do not have are left out");
    }
}
