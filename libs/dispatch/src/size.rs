//! How much work a task is.

use std::ops::{AddAssign, SubAssign};

/// Tokens that a task makes its engine read and write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Size {
    /// Of the prompt.
    pub(crate) tokens_in: u64,
    /// Generated.
    pub(crate) tokens_out: u64,
}

/// A generated token holds a slot about as long as four prompt tokens, which are read in batches;
/// price lists agree.
const OUT_WEIGHT: u64 = 4;

impl Size {
    /// In prompt tokens; at least one, so that nothing is free.
    pub(crate) fn weight(self) -> i64 {
        let weight = self.tokens_in.saturating_add(self.tokens_out.saturating_mul(OUT_WEIGHT));
        // Far above any context, far below what sums of it could overflow.
        i64::try_from(weight).unwrap_or(i64::MAX).clamp(1, 1 << 40)
    }
}

impl AddAssign for Size {
    fn add_assign(&mut self, other: Self) {
        self.tokens_in += other.tokens_in;
        self.tokens_out += other.tokens_out;
    }
}

impl SubAssign for Size {
    fn sub_assign(&mut self, other: Self) {
        self.tokens_in -= other.tokens_in;
        self.tokens_out -= other.tokens_out;
    }
}
