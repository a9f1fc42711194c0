//! AdamW with a clipped gradient and a cosine schedule.

use std::ops::Range;

/// The settings of a training run, in the order in which they matter.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// Number of steps.
    pub steps: usize,
    /// Steps over which the learning rate rises to its peak.
    pub warmup: usize,
    /// The highest learning rate.
    pub peak: f32,
    /// The last learning rate, as a part of the peak.
    pub floor: f32,
    /// Pull of the matrices towards zero, per step and unit of learning rate.
    pub weight_decay: f32,
    /// Longest gradient that is followed in full.
    pub clip: f32,
}

impl Schedule {
    /// The learning rate of a step, counted from 0.
    #[must_use]
    pub fn rate(&self, step: usize) -> f32 {
        if step < self.warmup {
            return self.peak * (step + 1) as f32 / self.warmup as f32;
        }
        let span = self.steps.saturating_sub(self.warmup).max(1);
        let done = ((step - self.warmup) as f32 / span as f32).min(1.0);
        let cosine = 0.5 * (1.0 + (std::f32::consts::PI * done).cos());
        self.peak * (self.floor + (1.0 - self.floor) * cosine)
    }
}

/// The running moments of every parameter.
#[derive(Clone, Debug)]
pub struct AdamW {
    first: Vec<f32>,
    second: Vec<f32>,
    taken: i32,
    undecayed: Vec<Range<usize>>,
}

const BETA_1: f32 = 0.9;
/// Short memory: the gradient's size changes quickly when copying is found.
const BETA_2: f32 = 0.98;
const EPSILON: f32 = 1e-8;

impl AdamW {
    /// Zero moments for `n` parameters; those in `undecayed` are not pulled to zero.
    #[must_use]
    pub fn new(n: usize, undecayed: Vec<Range<usize>>) -> Self {
        Self { first: vec![0.0; n], second: vec![0.0; n], taken: 0, undecayed }
    }

    /// One step down the gradient `grads * scale`; returns that gradient's length before it
    /// is clipped.
    pub fn step(&mut self, schedule: &Schedule, params: &mut [f32], grads: &[f32], scale: f32) -> f32 {
        let squares: f64 = grads.iter().map(|g| f64::from(*g) * f64::from(*g)).sum();
        let length = squares.sqrt() as f32 * scale;
        let scale = scale * (schedule.clip / length.max(schedule.clip));
        let step = self.taken as usize;
        self.taken += 1;
        let rate = schedule.rate(step);
        let keep = 1.0 - rate * schedule.weight_decay;
        let undecayed: Vec<(Range<usize>, Vec<f32>)> =
            self.undecayed.iter().map(|r| (r.clone(), params[r.clone()].to_vec())).collect();
        // Decay first, as AdamW does, and give the gains back what they lost.
        params.iter_mut().for_each(|p| *p *= keep);
        for (range, values) in undecayed {
            params[range].copy_from_slice(&values);
        }
        let (one, two) = (1.0 - BETA_1.powi(self.taken), 1.0 - BETA_2.powi(self.taken));
        let (rate, root) = (rate / one, two.sqrt());
        let moments = self.first.iter_mut().zip(&mut self.second);
        for ((p, g), (m, v)) in params.iter_mut().zip(grads).zip(moments) {
            let g = g * scale;
            *m = BETA_1 * *m + (1.0 - BETA_1) * g;
            *v = BETA_2 * *v + (1.0 - BETA_2) * g * g;
            *p -= rate * *m / (v.sqrt() / root + EPSILON);
        }
        length
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule() -> Schedule {
        Schedule { steps: 200, warmup: 10, peak: 0.1, floor: 0.02, weight_decay: 0.0, clip: 1.0 }
    }

    #[test]
    fn the_rate_rises_peaks_and_falls_to_its_floor() {
        let s = schedule();
        assert!(s.rate(0) < s.rate(5) && s.rate(5) < s.rate(10));
        assert!((s.rate(10) - 0.1).abs() < 1e-6);
        assert!((s.rate(200) - 0.002).abs() < 1e-6);
    }

    #[test]
    fn it_finds_the_bottom_of_a_bowl() {
        let mut adam = AdamW::new(2, vec![]);
        let mut at = vec![3.0, -2.0];
        for _ in 0..200 {
            let grads = [2.0 * (at[0] - 1.0), 20.0 * (at[1] - 0.5)];
            adam.step(&schedule(), &mut at, &grads, 1.0);
        }
        assert!((at[0] - 1.0).abs() < 0.02 && (at[1] - 0.5).abs() < 0.02, "{at:?}");
    }

    #[test]
    fn decay_spares_the_gains() {
        let mut adam = AdamW::new(3, vec![1..2, 2..3]);
        let mut at = vec![1.0, 1.0, 2.0];
        let decaying = Schedule { weight_decay: 0.5, ..schedule() };
        adam.step(&decaying, &mut at, &[0.0, 0.0, 0.0], 1.0);
        assert!(at[0] < 1.0);
        assert_eq!(at[1..], [1.0, 2.0]);
    }
}
