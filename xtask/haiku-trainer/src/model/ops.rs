//! The element-wise pieces of the network and their derivatives.
//!
//! Each function works on whole rows. Loops are written so that the compiler can turn them
//! into vector instructions; `exp` is a polynomial for the same reason.

/// Runs `work` compiled for the best vector instructions that this machine has.
///
/// The loops inside must be inlined into the closure, or they keep the baseline instructions.
#[inline(always)]
pub(crate) fn vectorised<R>(work: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(work)
}

/// e^x to about 2e-7 relative error, for x in [-87, 88]; outside it is clamped.
#[inline(always)]
pub(super) fn fast_exp(x: f32) -> f32 {
    // 1.5 * 2^23: adding it leaves the rounded integer in the low mantissa bits.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    // ln 2 in two parts keeps the remainder exact.
    let r = (x - n * 0.693_359_4) + n * 2.121_944_4e-4;
    let p = 1.0
        + r * (1.0
            + r * (0.5 + r * (0.166_666_55 + r * (0.041_665_795 + r * (0.008_333_452 + r * 0.001_398_2)))));
    p * f32::from_bits(shifted.to_bits().wrapping_add(127) << 23)
}

/// `out = x / rms(x) * gain` per row; keeps each row's `1 / rms` for the way back.
pub(super) fn norm(x: &[f32], gain: &[f32], eps: f32, out: &mut [f32], inverse: &mut [f32]) {
    vectorised(
        #[inline(always)]
        || norm_rows(x, gain, eps, out, inverse),
    );
}

#[inline(always)]
fn norm_rows(x: &[f32], gain: &[f32], eps: f32, out: &mut [f32], inverse: &mut [f32]) {
    let width = gain.len();
    for ((x, out), inv) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)).zip(inverse) {
        *inv = 1.0 / (dot(x, x) / width as f32 + eps).sqrt();
        for ((o, x), g) in out.iter_mut().zip(x).zip(gain) {
            *o = x * *inv * g;
        }
    }
}

/// Adds the norm's part to `dx` and `dgain`.
pub(super) fn norm_back(
    dout: &[f32],
    x: &[f32],
    gain: &[f32],
    inverse: &[f32],
    dx: &mut [f32],
    dgain: &mut [f32],
) {
    vectorised(
        #[inline(always)]
        || norm_back_rows(dout, x, gain, inverse, dx, dgain),
    );
}

#[inline(always)]
fn norm_back_rows(dout: &[f32], x: &[f32], gain: &[f32], inverse: &[f32], dx: &mut [f32], dgain: &mut [f32]) {
    let width = gain.len();
    let rows = dout.chunks_exact(width).zip(x.chunks_exact(width)).zip(inverse);
    for (((dout, x), inv), dx) in rows.zip(dx.chunks_exact_mut(width)) {
        let mut along = 0.0;
        for ((d, x), (g, dg)) in dout.iter().zip(x).zip(gain.iter().zip(dgain.iter_mut())) {
            *dg += d * x * inv;
            along += d * g * x;
        }
        let pull = along * inv * inv * inv / width as f32;
        for ((dx, x), (d, g)) in dx.iter_mut().zip(x).zip(dout.iter().zip(gain)) {
            *dx += inv * d * g - pull * x;
        }
    }
}

/// `out = silu(gate) * up`, where each row of `gate_up` holds the gates and then the ups.
pub(super) fn swiglu(gate_up: &[f32], ffn: usize, out: &mut [f32]) {
    vectorised(
        #[inline(always)]
        || swiglu_rows(gate_up, ffn, out),
    );
}

#[inline(always)]
fn swiglu_rows(gate_up: &[f32], ffn: usize, out: &mut [f32]) {
    for (row, out) in gate_up.chunks_exact(2 * ffn).zip(out.chunks_exact_mut(ffn)) {
        let (gate, up) = row.split_at(ffn);
        for ((o, g), u) in out.iter_mut().zip(gate).zip(up) {
            *o = g * u / (1.0 + fast_exp(-g));
        }
    }
}

/// Replaces each row of `gate_up` by its derivative.
pub(super) fn swiglu_back(dout: &[f32], ffn: usize, gate_up: &mut [f32]) {
    vectorised(
        #[inline(always)]
        || swiglu_back_rows(dout, ffn, gate_up),
    );
}

#[inline(always)]
fn swiglu_back_rows(dout: &[f32], ffn: usize, gate_up: &mut [f32]) {
    // Kept apart from the second loop, which then has no chain of dependent steps.
    let mut sigmoid = vec![0.0; ffn];
    for (row, dout) in gate_up.chunks_exact_mut(2 * ffn).zip(dout.chunks_exact(ffn)) {
        let (gate, up) = row.split_at_mut(ffn);
        for (g, s) in gate.iter().zip(sigmoid.iter_mut()) {
            *s = 1.0 / (1.0 + fast_exp(-g));
        }
        for i in 0..ffn {
            let silu = gate[i] * sigmoid[i];
            let slope = sigmoid[i] * (1.0 + gate[i] - silu);
            gate[i] = dout[i] * up[i] * slope;
            up[i] = dout[i] * silu;
        }
    }
}

/// Turns a row of scores into probabilities.
#[inline(always)]
pub(super) fn softmax(row: &mut [f32]) {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    for v in row.iter_mut() {
        *v = fast_exp(*v - max);
    }
    let scale = 1.0 / row.iter().sum::<f32>();
    for v in row {
        *v *= scale;
    }
}

/// Inner product with eight partial sums, so that it can use vector registers.
#[inline(always)]
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; 8];
    let (a8, b8) = (a.chunks_exact(8), b.chunks_exact(8));
    let tail: f32 = a8.remainder().iter().zip(b8.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a8.zip(b8) {
        for ((s, a), b) in sums.iter_mut().zip(a).zip(b) {
            *s += a * b;
        }
    }
    sums.iter().sum::<f32>() + tail
}

/// Cosines and sines of the rotary positions.
pub(super) struct Rotary {
    half: usize,
    table: Vec<(f32, f32)>,
}

/// Which way to turn.
#[derive(Clone, Copy)]
pub(super) enum Turn {
    Forward,
    Back,
}

impl Rotary {
    /// A table for positions below `positions`.
    pub(super) fn new(positions: usize, head_width: usize, theta: f32) -> Self {
        let half = head_width / 2;
        let angle =
            |p: usize, i: usize| p as f64 * f64::from(theta).powf(-2.0 * i as f64 / head_width as f64);
        let table = (0..positions)
            .flat_map(|p| (0..half).map(move |i| (p, i)))
            .map(|(p, i)| (angle(p, i).cos() as f32, angle(p, i).sin() as f32))
            .collect();
        Self { half, table }
    }

    /// Turns every head in `heads` (laid side by side) as position `position` asks.
    #[inline(always)]
    pub(super) fn turn(&self, heads: &mut [f32], position: usize, turn: Turn) {
        let angles = &self.table[position * self.half..(position + 1) * self.half];
        for head in heads.chunks_exact_mut(2 * self.half) {
            for (pair, &(cos, sin)) in head.chunks_exact_mut(2).zip(angles) {
                let sin = match turn {
                    Turn::Forward => sin,
                    Turn::Back => -sin,
                };
                let (a, b) = (pair[0], pair[1]);
                pair[0] = a * cos - b * sin;
                pair[1] = a * sin + b * cos;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_polynomial_follows_exp() {
        for i in -8000..8000 {
            let x = i as f32 * 0.01;
            let error = (f64::from(fast_exp(x)) / f64::from(x).exp() - 1.0).abs();
            assert!(error < 3e-6, "{x}: {error}");
        }
    }

    #[test]
    fn turning_back_undoes_turning() {
        let rotary = Rotary::new(50, 8, 10_000.0);
        let start: Vec<f32> = (0..16).map(|i| i as f32 - 3.5).collect();
        let mut heads = start.clone();
        rotary.turn(&mut heads, 37, Turn::Forward);
        assert!((heads[0] - start[0]).abs() > 0.1, "position 37 must move the first pair");
        rotary.turn(&mut heads, 37, Turn::Back);
        assert!(heads.iter().zip(&start).all(|(a, b)| (a - b).abs() < 1e-4));
    }
}
