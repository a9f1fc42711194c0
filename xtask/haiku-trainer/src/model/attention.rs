//! Causal attention over each sequence of a ragged batch, forward and back.
//!
//! Rows of `qkv` hold the queries, keys and values of all heads side by side. The whole square
//! of scores is computed and its upper half thrown away: sequences are short, and one matrix
//! product is quicker than a triangle of dot products.

use super::ops::{dot, softmax, vectorised};
use super::{Batch, Config};
use crate::matmul::{Mat, MatMut, Store, matmul};

/// Numbers needed to keep the probabilities of every sequence and head.
pub(super) fn probability_len(batch: &Batch, heads: usize) -> usize {
    batch.sequences().map(|(_, len)| len * len * heads).sum()
}

/// Where the parts of one head lie.
struct Head {
    q: usize,
    k: usize,
    v: usize,
    out: usize,
}

fn head_at(config: &Config, start: usize, head: usize) -> Head {
    let (d, at) = (config.width, head * config.head_width());
    let row = start * 3 * d;
    Head { q: row + at, k: row + d + at, v: row + 2 * d + at, out: start * d + at }
}

/// `out = softmax(q k^T / sqrt(head width)) v`, keeping the probabilities for the way back.
pub(super) fn attend(
    config: &Config,
    batch: &Batch,
    qkv: &[f32],
    probabilities: &mut [f32],
    out: &mut [f32],
) {
    let (d, hw) = (config.width, config.head_width());
    let scale = 1.0 / (hw as f32).sqrt();
    let mut rest = probabilities;
    for (start, len) in batch.sequences() {
        for head in 0..config.heads {
            let (p, tail) = rest.split_at_mut(len * len);
            rest = tail;
            let at = head_at(config, start, head);
            let q = Mat::strided(&qkv[at.q..], len, hw, 3 * d);
            let k = Mat::strided(&qkv[at.k..], len, hw, 3 * d);
            let v = Mat::strided(&qkv[at.v..], len, hw, 3 * d);
            matmul(MatMut::new(p, len, len), Store::Replace, scale, q, k.t());
            vectorised(
                #[inline(always)]
                || causal_softmax(p, len),
            );
            let out = MatMut::strided(&mut out[at.out..], len, hw, d);
            matmul(out, Store::Replace, 1.0, Mat::new(p, len, len), v);
        }
    }
}

/// Writes the derivatives of queries, keys and values into `dqkv`.
pub(super) fn attend_back(
    config: &Config,
    batch: &Batch,
    qkv: &[f32],
    probabilities: &[f32],
    dout: &[f32],
    dqkv: &mut [f32],
) {
    let (d, hw) = (config.width, config.head_width());
    let scale = 1.0 / (hw as f32).sqrt();
    let mut rest = probabilities;
    let mut ds = Vec::new();
    for (start, len) in batch.sequences() {
        ds.resize(len * len, 0.0);
        for head in 0..config.heads {
            let (p, tail) = rest.split_at(len * len);
            rest = tail;
            let at = head_at(config, start, head);
            let view = |at: usize| Mat::strided(&qkv[at..], len, hw, 3 * d);
            let dout = Mat::strided(&dout[at.out..], len, hw, d);
            let dv = MatMut::strided(&mut dqkv[at.v..], len, hw, 3 * d);
            matmul(dv, Store::Replace, 1.0, Mat::new(p, len, len).t(), dout);
            matmul(MatMut::new(&mut ds, len, len), Store::Replace, 1.0, dout, view(at.v).t());
            vectorised(
                #[inline(always)]
                || softmax_back(p, len, &mut ds),
            );
            let ds = Mat::new(&ds, len, len);
            let dq = MatMut::strided(&mut dqkv[at.q..], len, hw, 3 * d);
            matmul(dq, Store::Replace, scale, ds, view(at.k));
            let dk = MatMut::strided(&mut dqkv[at.k..], len, hw, 3 * d);
            matmul(dk, Store::Replace, scale, ds.t(), view(at.q));
        }
    }
}

/// Each position attends to itself and to what came before it.
#[inline(always)]
fn causal_softmax(scores: &mut [f32], len: usize) {
    for (i, row) in scores.chunks_exact_mut(len).enumerate() {
        softmax(&mut row[..=i]);
        row[i + 1..].fill(0.0);
    }
}

/// Turns derivatives of probabilities into derivatives of scores, row by row.
#[inline(always)]
fn softmax_back(probabilities: &[f32], len: usize, ds: &mut [f32]) {
    for (p, ds) in probabilities.chunks_exact(len).zip(ds.chunks_exact_mut(len)) {
        // Masked entries have p = 0 and so end at 0 without a special case.
        let mean = dot(p, ds);
        for (ds, p) in ds.iter_mut().zip(p) {
            *ds = p * (*ds - mean);
        }
    }
}
