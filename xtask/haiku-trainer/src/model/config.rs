//! The dimensions of the network.

/// What fixes the shape of every tensor, and the two constants of the architecture.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Number of tokens.
    pub vocab: usize,
    /// Numbers per position between layers.
    pub width: usize,
    /// Number of decoder layers.
    pub layers: usize,
    /// Attention heads; `width` is a multiple of it and the quotient is even.
    pub heads: usize,
    /// Inner width of the feed-forward part.
    pub ffn: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f32,
    /// Added to the mean square before its root is taken.
    pub norm_eps: f32,
}

impl Config {
    /// The shipped model: 937,088 parameters with the 656-token vocabulary.
    ///
    /// Three layers of 96 were tried and nearly copy every word; two of 64 do not.
    #[must_use]
    pub fn haiku(vocab: usize) -> Self {
        Self { vocab, width: 128, layers: 4, heads: 4, ffn: 384, rope_theta: 10_000.0, norm_eps: 1e-5 }
    }

    /// Numbers per head.
    #[must_use]
    pub fn head_width(&self) -> usize {
        self.width / self.heads.max(1)
    }
}
