//! A small, seeded random number generator.
//!
//! Training must give the same bytes for the same seed on the same machine, so nothing here
//! reads the clock or the operating system. It is not for secrets.

/// SplitMix64: one 64-bit word of state, good enough to shuffle a corpus.
#[derive(Clone, Debug)]
pub struct Rng {
    state: u64,
}

impl Rng {
    /// A generator for one purpose; equal parts give equal streams.
    ///
    /// The parts are mixed one after the other, so (step 1, sample 2) and (step 2, sample 1)
    /// are different streams.
    #[must_use]
    pub fn from_parts(parts: &[u64]) -> Self {
        let mut rng = Self { state: 0x9E37_79B9_7F4A_7C15 };
        for part in parts {
            rng.state ^= *part;
            rng.state = rng.next_u64();
        }
        rng
    }

    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.state)
    }

    /// A number below `n`; 0 when `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        if n == 0 {
            return 0;
        }
        // The modulo bias is below 2^-50 for every list in this crate.
        (self.next_u64() % n as u64) as usize
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f64) -> bool {
        self.unit() < p
    }

    /// Uniform in [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// One item of a list that is known at compile time to have at least one.
    pub fn pick<T: Copy, const N: usize>(&mut self, items: &[T; N]) -> T {
        const { assert!(N > 0) };
        items[self.below(N)]
    }

    /// One item of a list, or nothing from an empty one.
    pub fn choose<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.below(items.len()))
    }

    /// A standard normal value (Box-Muller).
    pub fn normal(&mut self) -> f32 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        (radius * (std::f64::consts::TAU * self.unit()).cos()) as f32
    }
}

/// The finaliser of SplitMix64: spreads every input bit over the output.
#[must_use]
pub fn mix(word: u64) -> u64 {
    let mut z = word;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_parts_give_equal_streams_and_order_matters() {
        let mut a = Rng::from_parts(&[7, 1, 2]);
        let mut b = Rng::from_parts(&[7, 1, 2]);
        let mut c = Rng::from_parts(&[7, 2, 1]);
        let first: Vec<u64> = (0..4).map(|_| a.next_u64()).collect();
        assert_eq!(first, (0..4).map(|_| b.next_u64()).collect::<Vec<_>>());
        assert_ne!(first, (0..4).map(|_| c.next_u64()).collect::<Vec<_>>());
    }

    #[test]
    fn below_reaches_every_value_and_no_other() {
        let mut rng = Rng::from_parts(&[3]);
        let mut seen = [0usize; 7];
        for _ in 0..7000 {
            seen[rng.below(7)] += 1;
        }
        assert!(seen.iter().all(|&n| n > 800 && n < 1200), "{seen:?}");
    }

    #[test]
    fn normal_has_unit_variance() {
        let mut rng = Rng::from_parts(&[5]);
        let values: Vec<f32> = (0..20_000).map(|_| rng.normal()).collect();
        let mean = values.iter().sum::<f32>() / 20_000.0;
        let var = values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / 20_000.0;
        assert!(mean.abs() < 0.03 && (var - 1.0).abs() < 0.05, "{mean} {var}");
    }
}
