//! The forward pass, and the buffers it leaves behind for the backward pass.

use super::attention::{attend, probability_len};
use super::ops::{Rotary, Turn, norm, swiglu, vectorised};
use super::{Batch, Config, LayerLayout, Layout};
use crate::matmul::{Mat, MatMut, Store, matmul};

/// What one layer keeps.
#[derive(Default)]
pub(super) struct LayerActs {
    pub(super) input: Vec<f32>,
    pub(super) attn_inverse: Vec<f32>,
    pub(super) attn_normed: Vec<f32>,
    pub(super) qkv: Vec<f32>,
    pub(super) probabilities: Vec<f32>,
    pub(super) attended: Vec<f32>,
    pub(super) middle: Vec<f32>,
    pub(super) ffn_inverse: Vec<f32>,
    pub(super) ffn_normed: Vec<f32>,
    pub(super) gate_up: Vec<f32>,
    pub(super) inner: Vec<f32>,
}

/// Every intermediate result of one forward pass; reused from batch to batch.
pub struct Activations {
    pub(super) rotary: Rotary,
    pub(super) layers: Vec<LayerActs>,
    pub(super) output: Vec<f32>,
    pub(super) asked: Vec<f32>,
    pub(super) final_inverse: Vec<f32>,
    pub(super) final_normed: Vec<f32>,
    pub(super) logits: Vec<f32>,
}

impl Activations {
    /// Buffers for sequences of up to `positions` tokens.
    #[must_use]
    pub fn new(config: &Config, positions: usize) -> Self {
        Self {
            rotary: Rotary::new(positions, config.head_width(), config.rope_theta),
            layers: (0..config.layers).map(|_| LayerActs::default()).collect(),
            output: Vec::new(),
            asked: Vec::new(),
            final_inverse: Vec::new(),
            final_normed: Vec::new(),
            logits: Vec::new(),
        }
    }

    /// Scores of the last forward pass: one row of `vocab` per asked position.
    #[must_use]
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }
}

/// Computes the scores of every asked position.
pub fn forward(config: &Config, layout: &Layout, params: &[f32], batch: &Batch, acts: &mut Activations) {
    let d = config.width;
    let table = &params[layout.embedding.clone()];
    acts.output.clear();
    for &token in batch.tokens() {
        let at = token as usize * d;
        acts.output.extend_from_slice(&table[at..at + d]);
    }
    for (spec, layer) in layout.layers.iter().zip(&mut acts.layers) {
        attention_block(config, spec, params, batch, &acts.rotary, layer, &mut acts.output);
        ffn_block(config, spec, params, layer, &mut acts.output);
    }
    acts.asked.clear();
    for &row in batch.asked() {
        acts.asked.extend_from_slice(&acts.output[row * d..(row + 1) * d]);
    }
    let rows = batch.asked().len();
    acts.final_normed.resize(rows * d, 0.0);
    acts.final_inverse.resize(rows, 0.0);
    acts.logits.resize(rows * config.vocab, 0.0);
    let gain = &params[layout.final_norm.clone()];
    norm(&acts.asked, gain, config.norm_eps, &mut acts.final_normed, &mut acts.final_inverse);
    project(&acts.final_normed, table, d, config.vocab, Store::Replace, &mut acts.logits);
}

/// `stream += attention(norm(stream))`.
fn attention_block(
    config: &Config,
    spec: &LayerLayout,
    params: &[f32],
    batch: &Batch,
    rotary: &Rotary,
    layer: &mut LayerActs,
    stream: &mut [f32],
) {
    let d = config.width;
    let rows = stream.len() / d;
    layer.input.clear();
    layer.input.extend_from_slice(stream);
    layer.attn_inverse.resize(rows, 0.0);
    layer.attn_normed.resize(rows * d, 0.0);
    layer.qkv.resize(rows * 3 * d, 0.0);
    layer.attended.resize(rows * d, 0.0);
    layer.probabilities.resize(probability_len(batch, config.heads), 0.0);
    let gain = &params[spec.attn_norm.clone()];
    norm(stream, gain, config.norm_eps, &mut layer.attn_normed, &mut layer.attn_inverse);
    project(&layer.attn_normed, &params[spec.qkv.clone()], d, 3 * d, Store::Replace, &mut layer.qkv);
    turn_all(rotary, batch, d, &mut layer.qkv, Turn::Forward);
    attend(config, batch, &layer.qkv, &mut layer.probabilities, &mut layer.attended);
    project(&layer.attended, &params[spec.attn_out.clone()], d, d, Store::Add, stream);
}

/// `stream += swiglu(norm(stream))`.
fn ffn_block(config: &Config, spec: &LayerLayout, params: &[f32], layer: &mut LayerActs, stream: &mut [f32]) {
    let (d, f) = (config.width, config.ffn);
    let rows = stream.len() / d;
    layer.middle.clear();
    layer.middle.extend_from_slice(stream);
    layer.ffn_inverse.resize(rows, 0.0);
    layer.ffn_normed.resize(rows * d, 0.0);
    layer.gate_up.resize(rows * 2 * f, 0.0);
    layer.inner.resize(rows * f, 0.0);
    let gain = &params[spec.ffn_norm.clone()];
    norm(stream, gain, config.norm_eps, &mut layer.ffn_normed, &mut layer.ffn_inverse);
    project(&layer.ffn_normed, &params[spec.gate_up.clone()], d, 2 * f, Store::Replace, &mut layer.gate_up);
    swiglu(&layer.gate_up, f, &mut layer.inner);
    project(&layer.inner, &params[spec.down.clone()], f, d, Store::Add, stream);
}

/// Turns the queries and keys of every row by its position in its sequence.
pub(super) fn turn_all(rotary: &Rotary, batch: &Batch, width: usize, qkv: &mut [f32], turn: Turn) {
    vectorised(
        #[inline(always)]
        || {
            for (start, len) in batch.sequences() {
                for position in 0..len {
                    let row = (start + position) * 3 * width;
                    rotary.turn(&mut qkv[row..row + 2 * width], position, turn);
                }
            }
        },
    );
}

/// `out = x weight^T` for a weight of `outputs` rows of `inputs`.
fn project(x: &[f32], weight: &[f32], inputs: usize, outputs: usize, store: Store, out: &mut [f32]) {
    let rows = x.len() / inputs;
    let weight = Mat::new(weight, outputs, inputs);
    matmul(MatMut::new(out, rows, outputs), store, 1.0, Mat::new(x, rows, inputs), weight.t());
}
