//! The backward pass: cross-entropy of the asked positions and its gradient.
//!
//! Gradients are sums over tokens, not means; the caller divides by the number of answers, so
//! that pieces of a batch computed apart add up to the whole.

use super::attention::attend_back;
use super::forward::{Activations, LayerActs, turn_all};
use super::ops::{Rotary, Turn, norm_back, softmax, swiglu_back, vectorised};
use super::{Batch, Config, LayerLayout, Layout};
use crate::matmul::{Mat, MatMut, Store, matmul};

/// Adds the gradient of the summed loss to `grads` and returns that loss.
///
/// `acts` must come from [`super::forward`] on the same parameters and batch; it is used up.
pub fn backward(
    config: &Config,
    layout: &Layout,
    params: &[f32],
    batch: &Batch,
    acts: &mut Activations,
    grads: &mut [f32],
) -> f64 {
    let d = config.width;
    let loss = vectorised(
        #[inline(always)]
        || cross_entropy(config.vocab, batch.answers(), &mut acts.logits),
    );
    let mut dstream = vec![0.0; batch.tokens().len() * d];
    head_back(config, layout, params, batch, acts, grads, &mut dstream);
    for (spec, layer) in layout.layers.iter().zip(&mut acts.layers).rev() {
        ffn_back(config, spec, params, layer, grads, &mut dstream);
        attention_back(config, spec, params, batch, &acts.rotary, layer, grads, &mut dstream);
    }
    let table = &mut grads[layout.embedding.clone()];
    for (&token, drow) in batch.tokens().iter().zip(dstream.chunks_exact(d)) {
        let at = token as usize * d;
        for (g, d) in table[at..at + d].iter_mut().zip(drow) {
            *g += d;
        }
    }
    loss
}

/// Replaces the scores by the loss's derivative and returns the summed loss.
#[inline(always)]
fn cross_entropy(vocab: usize, answers: &[u32], logits: &mut [f32]) -> f64 {
    let mut loss = 0.0;
    for (row, &answer) in logits.chunks_exact_mut(vocab).zip(answers) {
        softmax(row);
        let p = &mut row[answer as usize];
        loss -= f64::from(p.max(1e-30)).ln();
        *p -= 1.0;
    }
    loss
}

/// From the scores to the stream behind the last layer.
fn head_back(
    config: &Config,
    layout: &Layout,
    params: &[f32],
    batch: &Batch,
    acts: &Activations,
    grads: &mut [f32],
    dstream: &mut [f32],
) {
    let (d, v, rows) = (config.width, config.vocab, batch.asked().len());
    let mut dnormed = vec![0.0; rows * d];
    let table = &params[layout.embedding.clone()];
    project_back(
        &acts.final_normed,
        table,
        &acts.logits,
        (d, v),
        &mut grads[layout.embedding.clone()],
        &mut dnormed,
    );
    let mut dasked = vec![0.0; rows * d];
    let gain = &params[layout.final_norm.clone()];
    norm_back(
        &dnormed,
        &acts.asked,
        gain,
        &acts.final_inverse,
        &mut dasked,
        &mut grads[layout.final_norm.clone()],
    );
    for (&row, drow) in batch.asked().iter().zip(dasked.chunks_exact(d)) {
        for (g, d) in dstream[row * d..(row + 1) * d].iter_mut().zip(drow) {
            *g += d;
        }
    }
}

fn ffn_back(
    config: &Config,
    spec: &LayerLayout,
    params: &[f32],
    layer: &mut LayerActs,
    grads: &mut [f32],
    dstream: &mut [f32],
) {
    let (d, f) = (config.width, config.ffn);
    let mut dinner = vec![0.0; layer.inner.len()];
    let down = &params[spec.down.clone()];
    project_back(&layer.inner, down, dstream, (f, d), &mut grads[spec.down.clone()], &mut dinner);
    swiglu_back(&dinner, f, &mut layer.gate_up);
    let mut dnormed = vec![0.0; dstream.len()];
    let gate_up = &params[spec.gate_up.clone()];
    project_back(
        &layer.ffn_normed,
        gate_up,
        &layer.gate_up,
        (d, 2 * f),
        &mut grads[spec.gate_up.clone()],
        &mut dnormed,
    );
    let gain = &params[spec.ffn_norm.clone()];
    norm_back(&dnormed, &layer.middle, gain, &layer.ffn_inverse, dstream, &mut grads[spec.ffn_norm.clone()]);
}

#[expect(clippy::too_many_arguments, reason = "one step of one pass; a struct would only rename them")]
fn attention_back(
    config: &Config,
    spec: &LayerLayout,
    params: &[f32],
    batch: &Batch,
    rotary: &Rotary,
    layer: &mut LayerActs,
    grads: &mut [f32],
    dstream: &mut [f32],
) {
    let d = config.width;
    let mut dattended = vec![0.0; dstream.len()];
    let attn_out = &params[spec.attn_out.clone()];
    project_back(
        &layer.attended,
        attn_out,
        dstream,
        (d, d),
        &mut grads[spec.attn_out.clone()],
        &mut dattended,
    );
    let mut dqkv = vec![0.0; layer.qkv.len()];
    attend_back(config, batch, &layer.qkv, &layer.probabilities, &dattended, &mut dqkv);
    turn_all(rotary, batch, d, &mut dqkv, Turn::Back);
    let dnormed = &mut dattended;
    let qkv = &params[spec.qkv.clone()];
    project_back(&layer.attn_normed, qkv, &dqkv, (d, 3 * d), &mut grads[spec.qkv.clone()], dnormed);
    let gain = &params[spec.attn_norm.clone()];
    norm_back(dnormed, &layer.input, gain, &layer.attn_inverse, dstream, &mut grads[spec.attn_norm.clone()]);
}

/// Back through `out = x weight^T`: adds to `dweight`, replaces `dx`.
fn project_back(
    x: &[f32],
    weight: &[f32],
    dout: &[f32],
    (inputs, outputs): (usize, usize),
    dweight: &mut [f32],
    dx: &mut [f32],
) {
    let rows = x.len() / inputs;
    let dout = Mat::new(dout, rows, outputs);
    matmul(MatMut::new(dweight, outputs, inputs), Store::Add, 1.0, dout.t(), Mat::new(x, rows, inputs));
    matmul(MatMut::new(dx, rows, inputs), Store::Replace, 1.0, dout, Mat::new(weight, outputs, inputs));
}

#[cfg(test)]
mod tests {
    use super::super::{forward, initial_params};
    use super::*;
    use crate::rng::Rng;

    fn loss_at(config: &Config, layout: &Layout, params: &[f32], batch: &Batch) -> f64 {
        let mut acts = Activations::new(config, 16);
        forward(config, layout, params, batch, &mut acts);
        let vocab = config.vocab;
        acts.logits()
            .chunks_exact(vocab)
            .zip(batch.answers())
            .map(|(row, &answer)| {
                // In double precision, and by another route than the code under test.
                let sum: f64 = row.iter().map(|v| f64::from(*v).exp()).sum();
                sum.ln() - f64::from(row[answer as usize])
            })
            .sum()
    }

    #[test]
    fn every_tensor_gets_the_gradient_that_finite_differences_give() {
        let config =
            Config { vocab: 11, width: 8, layers: 2, heads: 2, ffn: 12, rope_theta: 100.0, norm_eps: 1e-5 };
        let layout = Layout::new(&config);
        let mut rng = Rng::from_parts(&[11]);
        let mut params = initial_params(&config, &layout, &mut rng);
        params.iter_mut().for_each(|p| *p += 0.1 * rng.normal());
        let mut batch = Batch::new();
        batch.push_sample(&[1, 5, 3, 7, 2, 9, 4], 3);
        batch.push_sample(&[2, 10, 0, 6], 1);
        let mut acts = Activations::new(&config, 16);
        forward(&config, &layout, &params, &batch, &mut acts);
        let mut grads = vec![0.0; layout.total];
        let loss = backward(&config, &layout, &params, &batch, &mut acts, &mut grads);
        assert!((loss - loss_at(&config, &layout, &params, &batch)).abs() < 1e-3);

        let mut ranges = vec![layout.embedding.clone(), layout.final_norm.clone()];
        for l in &layout.layers {
            ranges.extend(
                [&l.attn_norm, &l.qkv, &l.attn_out, &l.ffn_norm, &l.gate_up, &l.down].map(Clone::clone),
            );
        }
        for range in ranges {
            let (mut worst, mut size) = (0.0f64, 0.0f64);
            for i in range.clone() {
                let keep = params[i];
                let h = 4e-3;
                params[i] = keep + h;
                let up = loss_at(&config, &layout, &params, &batch);
                params[i] = keep - h;
                let down = loss_at(&config, &layout, &params, &batch);
                params[i] = keep;
                let want = (up - down) / (2.0 * f64::from(h));
                worst = worst.max((want - f64::from(grads[i])).abs());
                size = size.max(want.abs());
            }
            assert!(size > 1e-2, "{range:?} has no gradient to compare");
            assert!(worst < 0.01 * size + 2e-3, "{range:?}: off by {worst} of {size}");
        }
    }
}
