//! Where each tensor lies in the one flat vector of parameters.
//!
//! Flat, so that the gradient, both moments of the optimiser and the parameters are four
//! vectors of the same length. Matrices are stored row by row, one row per output, which is
//! also how the model file wants them.

use std::ops::Range;

use super::Config;
use crate::rng::Rng;

/// The ranges of one decoder layer.
#[derive(Clone, Debug)]
pub struct LayerLayout {
    /// Gain of the norm before attention.
    pub attn_norm: Range<usize>,
    /// Query, key and value projections stacked: 3 x width rows of width.
    pub qkv: Range<usize>,
    /// Output projection of attention.
    pub attn_out: Range<usize>,
    /// Gain of the norm before the feed-forward part.
    pub ffn_norm: Range<usize>,
    /// Gate and up projections stacked: 2 x ffn rows of width.
    pub gate_up: Range<usize>,
    /// Down projection: width rows of ffn.
    pub down: Range<usize>,
}

/// The ranges of the whole model.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Token table, used for input and output.
    pub embedding: Range<usize>,
    /// Decoder layers in order.
    pub layers: Vec<LayerLayout>,
    /// Gain of the last norm.
    pub final_norm: Range<usize>,
    /// Number of parameters.
    pub total: usize,
}

impl Layout {
    /// Lays the tensors of `config` out, in file order.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let mut end = 0;
        let mut take = |n: usize| {
            let start = end;
            end += n;
            start..end
        };
        let (d, f) = (config.width, config.ffn);
        let embedding = take(config.vocab * d);
        let layers = (0..config.layers)
            .map(|_| LayerLayout {
                attn_norm: take(d),
                qkv: take(3 * d * d),
                attn_out: take(d * d),
                ffn_norm: take(d),
                gate_up: take(2 * f * d),
                down: take(d * f),
            })
            .collect();
        let final_norm = take(d);
        Self { embedding, layers, final_norm, total: end }
    }

    /// Gains, which weight decay must leave alone: pulling them to zero only fights the norm.
    #[must_use]
    pub fn gains(&self) -> Vec<Range<usize>> {
        let in_layers = self.layers.iter().flat_map(|l| [l.attn_norm.clone(), l.ffn_norm.clone()]);
        in_layers.chain([self.final_norm.clone()]).collect()
    }
}

/// Random matrices, gains of one.
///
/// Projections that write into the residual stream start smaller, by the square root of how
/// many of them add up, so that its size does not grow with depth.
#[must_use]
pub fn initial_params(config: &Config, layout: &Layout, rng: &mut Rng) -> Vec<f32> {
    let mut params = vec![0.0; layout.total];
    let inner = 1.0 / (config.width as f32).sqrt();
    let residual = 1.0 / (2.0 * config.layers.max(1) as f32).sqrt();
    let down = residual / (config.ffn as f32).sqrt();
    let mut fill = |range: &Range<usize>, std: f32| {
        for p in &mut params[range.clone()] {
            *p = rng.normal() * std;
        }
    };
    fill(&layout.embedding, 0.5 * inner);
    for layer in &layout.layers {
        fill(&layer.qkv, inner);
        fill(&layer.attn_out, residual * inner);
        fill(&layer.gate_up, inner);
        fill(&layer.down, down);
    }
    for gain in layout.gains() {
        params[gain].fill(1.0);
    }
    params
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_shape_has_the_documented_number_of_parameters() {
        assert_eq!(Layout::new(&Config::haiku(656)).total, 937_088);
    }

    #[test]
    fn every_matrix_starts_random_and_every_gain_starts_at_one() {
        let config = Config::haiku(656);
        let layout = Layout::new(&config);
        let params = initial_params(&config, &layout, &mut Rng::from_parts(&[1]));
        assert!(params.iter().all(|p| *p != 0.0));
        assert!(layout.gains().into_iter().all(|g| params[g].iter().all(|p| *p == 1.0)));
    }
}
