//! The training loop: two workers with a fixed share of every step.
//!
//! A sample is a function of the seed, the step and its index, and the workers' gradients are
//! added in a fixed order, so a run gives the same parameters whenever it is repeated on the
//! same machine, however the threads are scheduled.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use crate::chat::exchange_ids;
use crate::corpus::{Corpus, Lists};
use crate::model::{Activations, Batch, Config, Layout, backward, forward, initial_params};
use crate::optim::{AdamW, Schedule};
use crate::rng::Rng;
use crate::tokenizer::Tokenizer;

/// Merges on top of the 356 fixed tokens.
pub const MERGES: usize = 300;
/// The longest sequence that training may meet, in tokens.
pub const MAX_POSITIONS: usize = 512;
const WORKERS: usize = 2;
/// Sequences per pass: small enough for the activations of a pass to stay in the cache.
const SEQUENCES_PER_PASS: usize = 14;
const REPORT_EVERY: usize = 100;

// Streams of the generator, so that no two uses share numbers.
const STREAM_TOKENIZER: u64 = 1;
const STREAM_PARAMS: u64 = 2;
const STREAM_SAMPLES: u64 = 3;

/// What decides the outcome of a run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Start of every random stream.
    pub seed: u64,
    /// Exchanges from which the tokenizer learns its pieces.
    pub tokenizer_samples: usize,
    /// Dimensions for a number of tokens.
    pub shape: fn(usize) -> Config,
    /// Exchanges per step.
    pub samples_per_step: usize,
    /// The optimiser's settings.
    pub schedule: Schedule,
}

impl Plan {
    /// The run that makes the shipped file.
    #[must_use]
    pub fn shipped() -> Self {
        let schedule =
            Schedule { steps: 5000, warmup: 150, peak: 3e-3, floor: 0.02, weight_decay: 0.05, clip: 1.0 };
        Self {
            seed: 20_251_120,
            tokenizer_samples: 12_000,
            shape: Config::haiku,
            samples_per_step: 48,
            schedule,
        }
    }
}

/// A trained model with all that is needed to write it down.
#[derive(Clone, Debug)]
pub struct Trained {
    /// Dimensions.
    pub config: Config,
    /// Where each tensor lies.
    pub layout: Layout,
    /// The numbers.
    pub params: Vec<f32>,
    /// The pieces.
    pub tokenizer: Tokenizer,
    /// How the run went.
    pub summary: Summary,
}

/// Measured facts about a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    /// Wall time of the steps.
    pub elapsed: Duration,
    /// Tokens that went through the network.
    pub tokens: usize,
    /// Mean loss per answer token over the last hundred steps, in nats.
    pub loss: f64,
}

/// Learns the tokenizer and trains the model, telling `progress` about it.
///
/// # Errors
/// If a worker dies, the loss stops being a number, or `progress` cannot be written to.
pub fn train(plan: &Plan, progress: &mut dyn Write) -> Result<Trained> {
    let corpus = Corpus::new(&Lists::load());
    let mut rng = Rng::from_parts(&[plan.seed, STREAM_TOKENIZER]);
    let tokenizer = Tokenizer::learn(&corpus.tokenizer_text(&mut rng, plan.tokenizer_samples), MERGES);
    let corpus = corpus.with_pieces(tokenizer.learned().to_vec());
    let config = (plan.shape)(tokenizer.len());
    let layout = Layout::new(&config);
    let mut rng = Rng::from_parts(&[plan.seed, STREAM_PARAMS]);
    let mut params = initial_params(&config, &layout, &mut rng);
    writeln!(
        progress,
        "{} tokens, {} parameters, {} steps",
        config.vocab, layout.total, plan.schedule.steps
    )?;

    let mut adam = AdamW::new(layout.total, layout.gains());
    let mut workers: Vec<Worker> = (0..WORKERS).map(|index| Worker::new(index, &config, &layout)).collect();
    let setup = Setup { plan, corpus: &corpus, tokenizer: &tokenizer, config: &config, layout: &layout };
    let mut summary = Summary::default();
    let (mut loss, mut answers) = (0.0, 0);
    let start = Instant::now();
    for step in 0..plan.schedule.steps {
        let done = run_step(&setup, &params, &mut workers, step)?;
        let grads = add_up(&mut workers)?;
        adam.step(&plan.schedule, &mut params, grads, 1.0 / done.answers.max(1) as f32);
        summary.tokens += done.tokens;
        loss += done.loss;
        answers += done.answers;
        if (step + 1) % REPORT_EVERY == 0 {
            summary.loss = loss / f64::from(u32::try_from(answers)?);
            anyhow::ensure!(summary.loss.is_finite(), "the loss is no longer a number");
            let seconds = start.elapsed().as_secs_f64();
            let speed = summary.tokens as f64 / seconds;
            writeln!(
                progress,
                "step {:5}  loss {:.4}  {speed:.0} tokens/s  {seconds:.0} s",
                step + 1,
                summary.loss
            )?;
            (loss, answers) = (0.0, 0);
        }
    }
    summary.elapsed = start.elapsed();
    Ok(Trained { config, layout, params, tokenizer, summary })
}

/// What every worker needs and none changes.
struct Setup<'a> {
    plan: &'a Plan,
    corpus: &'a Corpus,
    tokenizer: &'a Tokenizer,
    config: &'a Config,
    layout: &'a Layout,
}

/// What one step, or one worker's share of it, amounted to.
#[derive(Clone, Copy, Default)]
struct Share {
    loss: f64,
    answers: usize,
    tokens: usize,
}

struct Worker {
    index: usize,
    acts: Activations,
    grads: Vec<f32>,
}

impl Worker {
    fn new(index: usize, config: &Config, layout: &Layout) -> Self {
        Self { index, acts: Activations::new(config, MAX_POSITIONS), grads: vec![0.0; layout.total] }
    }

    /// The gradient of every `WORKERS`th sample of the step.
    fn run(&mut self, setup: &Setup<'_>, params: &[f32], step: usize) -> Share {
        self.grads.fill(0.0);
        let mut share = Share::default();
        let mine: Vec<usize> = (self.index..setup.plan.samples_per_step).step_by(WORKERS).collect();
        for pass in mine.chunks(SEQUENCES_PER_PASS) {
            let mut batch = Batch::new();
            for &sample in pass {
                let mut rng = Rng::from_parts(&[setup.plan.seed, STREAM_SAMPLES, step as u64, sample as u64]);
                let sample = setup.corpus.sample(&mut rng);
                let (mut ids, prompt_len) = exchange_ids(setup.tokenizer, &sample.prompt, &sample.answer);
                ids.truncate(MAX_POSITIONS);
                batch.push_sample(&ids, prompt_len);
            }
            forward(setup.config, setup.layout, params, &batch, &mut self.acts);
            share.loss +=
                backward(setup.config, setup.layout, params, &batch, &mut self.acts, &mut self.grads);
            share.answers += batch.answers().len();
            share.tokens += batch.tokens().len();
        }
        share
    }
}

fn run_step(setup: &Setup<'_>, params: &[f32], workers: &mut [Worker], step: usize) -> Result<Share> {
    let (last, others) = workers.split_last_mut().context("no workers")?;
    std::thread::scope(|scope| {
        let running: Vec<_> = others.iter_mut().map(|w| scope.spawn(|| w.run(setup, params, step))).collect();
        let mine = last.run(setup, params, step);
        running.into_iter().try_fold(mine, |sum, worker| {
            let share = worker.join().map_err(|_| anyhow!("a training worker died"))?;
            Ok(Share {
                loss: sum.loss + share.loss,
                answers: sum.answers + share.answers,
                tokens: sum.tokens + share.tokens,
            })
        })
    })
}

/// The sum of all gradients, in the first worker's buffer.
fn add_up(workers: &mut [Worker]) -> Result<&[f32]> {
    let (first, others) = workers.split_first_mut().context("no workers")?;
    for other in others {
        first.grads.iter_mut().zip(&other.grads).for_each(|(sum, g)| *sum += g);
    }
    Ok(&first.grads)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_run_learns_and_repeats_to_the_bit() -> Result<()> {
        let mut plan = Plan::shipped();
        plan.tokenizer_samples = 200;
        plan.samples_per_step = 2;
        plan.shape = |vocab| Config { width: 16, layers: 1, heads: 2, ffn: 24, ..Config::haiku(vocab) };
        plan.schedule.steps = 100;
        plan.schedule.warmup = 10;
        plan.schedule.peak = 1e-2;
        let (one, two) = (train(&plan, &mut std::io::sink())?, train(&plan, &mut std::io::sink())?);
        assert!(one.params == two.params, "the same plan must give the same bits");
        // Guessing among all tokens alike costs ln(656) = 6.5; the mean covers the start too.
        assert!(one.summary.loss < 5.6, "{}", one.summary.loss);
        plan.seed += 1;
        assert!(train(&plan, &mut std::io::sink())?.params != one.params, "the seed must matter");
        Ok(())
    }
}
