//! What a simulated load has shown.

use std::time::Duration;

use wire::task::Priority;

use super::load::{Arrival, CALLERS, Load};

/// Seconds: shorter waits are told in time for nobody to care.
pub(super) const WORTH_S: f64 = 1.0;

/// What became of a task.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Outcome {
    pub(super) admitted: bool,
    pub(super) started: Option<f64>,
    pub(super) foretold: Option<Foretold>,
    /// Seconds until its start, as the oracle guessed, where it was asked.
    pub(super) guessed: Option<f64>,
}

impl Outcome {
    pub(super) fn waits(&self) -> bool {
        self.admitted && self.started.is_none()
    }
}

/// What a task was told when it came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Foretold {
    pub(super) position: usize,
    pub(super) queue: Duration,
    pub(super) told: f64,
}

/// The numbers.
#[derive(Clone)]
pub(super) struct Report {
    slots: usize,
    tasks: usize,
    refused: usize,
    /// Admitted, and never run.
    pub(super) lost: usize,
    pub(super) peak_waiting: usize,
    /// Seconds of slots that each caller had.
    pub(super) work: Vec<f64>,
    /// Jain's index of what each got of what it was entitled to, over the hours with too much load.
    pub(super) fairness: f64,
    /// Batch's part of the slots while more came than they could do.
    pub(super) batch_share: f64,
    waits: [Vec<f64>; 2],
    pub(super) median_error: f64,
    /// Of the oracle, where it was asked.
    pub(super) least_error: Option<f64>,
    /// With fewer than 4, fewer than 16, and more tasks ahead.
    pub(super) errors: [f64; 3],
}

impl Report {
    pub(super) fn new(
        load: &Load,
        arrivals: &[Arrival],
        outcomes: &[Outcome],
        peak: usize,
        closing: f64,
    ) -> Self {
        let (mut work, mut batch, mut all) = (vec![0.0; CALLERS], 0.0, 0.0);
        let mut waits = [Vec::new(), Vec::new()];
        let (mut errors, mut guesses) = (Vec::new(), Vec::new());
        let mut by_position = [Vec::new(), Vec::new(), Vec::new()];
        for (arrival, outcome) in arrivals.iter().zip(outcomes) {
            let Some(started) = outcome.started else { continue };
            let waited = started - arrival.at;
            waits[usize::from(arrival.priority == Priority::Batch)].push(waited);
            if started < closing {
                work[arrival.caller] += arrival.service;
                all += arrival.service;
                batch += if arrival.priority == Priority::Batch { arrival.service } else { 0.0 };
            }
            if waited < WORTH_S {
                continue;
            }
            guesses.extend(outcome.guessed.map(|guessed| (guessed - waited).abs() / waited));
            if let Some(foretold) = outcome.foretold {
                let error = (foretold.told - waited).abs() / waited;
                errors.push(error);
                let by = [4, 16, usize::MAX].iter().position(|most| foretold.position < *most).unwrap_or(2);
                by_position[by].push(error);
            }
        }
        waits.iter_mut().for_each(|waits| waits.sort_by(f64::total_cmp));
        [&mut errors, &mut guesses].into_iter().for_each(|errors| errors.sort_by(f64::total_cmp));
        by_position.iter_mut().for_each(|errors| errors.sort_by(f64::total_cmp));
        Self {
            slots: load.slots,
            tasks: arrivals.len(),
            refused: outcomes.iter().filter(|outcome| !outcome.admitted).count(),
            lost: outcomes.iter().filter(|outcome| outcome.admitted && outcome.started.is_none()).count(),
            peak_waiting: peak,
            work,
            fairness: fairness(load, arrivals, outcomes),
            batch_share: batch / all,
            waits,
            median_error: quantile(&errors, 0.5),
            least_error: (!guesses.is_empty()).then(|| quantile(&guesses, 0.5)),
            errors: by_position.map(|errors| quantile(&errors, 0.5)),
        }
    }

    /// One row per report.
    pub(super) fn print(title: &str, reports: &[Self]) {
        say(&format!("\n## {title}\n\n{HEAD}"));
        for report in reports {
            let waits = |class: usize| {
                let waits = [0.5, 0.9, 0.99].map(|q| quantile(&report.waits[class], q));
                waits.map(|wait| format!("{wait:.1}")).join(" / ")
            };
            let percent = |part: f64| format!("{:.0} %", part * 100.0);
            say(&format!(
                "| {} | {} | {} | {:.4} | {:.4} | {} | {} | {:.1} % | {}, {}, {} |",
                report.slots,
                report.tasks,
                report.refused,
                report.fairness,
                jain(&report.work),
                waits(0),
                waits(1),
                report.batch_share * 100.0,
                percent(report.median_error),
                report.least_error.map_or_else(|| "not asked".to_owned(), percent),
                report.errors.map(percent).join(" / ")
            ));
        }
    }
}

const HEAD: &str = "\
| slots | tasks | refused | Jain, of its due | Jain, of the slots | interactive waits p50 / p90 / p99 s \
| batch waits p50 / p90 / p99 s | batch's part | estimate's error p50, the oracle's, with < 4 / < 16 / more ahead |
|--:|--:|--:|--:|--:|--:|--:|--:|--:|";

/// Prints a line of a table.
pub(super) fn say(line: &str) {
    println!("{line}");
}

/// 1 when all are equal, 1/n when one has everything.
pub(super) fn jain(shares: &[f64]) -> f64 {
    let (sum, squares) = shares.iter().fold((0.0, 0.0), |(sum, squares), x| (sum + x, squares + x * x));
    if squares > 0.0 { sum * sum / (shares.len() as f64 * squares) } else { 1.0 }
}

/// What each caller is due when `total` is shared out so that nobody gets more than it wants and
/// nobody could be given more without taking from one that has less.
fn entitled(wanted: &[f64], total: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by(|a, b| wanted[*a].total_cmp(&wanted[*b]));
    let (mut left, mut due) = (total, vec![0.0; wanted.len()]);
    for (i, caller) in order.iter().enumerate() {
        due[*caller] = wanted[*caller].min(left / (order.len() - i) as f64);
        left -= due[*caller];
    }
    due
}

/// Over each hour in which more came than could be done, by the work of what came in it; class by
/// class, because one goes before the other.
fn fairness(load: &Load, arrivals: &[Arrival], outcomes: &[Outcome]) -> f64 {
    let (mut got, mut due) = (vec![0.0; CALLERS], vec![0.0; CALLERS]);
    let crowded = |hour: usize| (load.offered)(hour as f64 + 0.5) > 1.2;
    let hours = load.hours as usize;
    let mut wanted = vec![[0.0; CALLERS]; hours * 2];
    let mut served = wanted.clone();
    for (arrival, outcome) in arrivals.iter().zip(outcomes) {
        let hour = ((arrival.at / super::HOUR) as usize).min(hours - 1);
        let cell = hour * 2 + usize::from(arrival.priority == Priority::Batch);
        wanted[cell][arrival.caller] += arrival.service;
        served[cell][arrival.caller] += if outcome.started.is_some() { arrival.service } else { 0.0 };
    }
    for cell in (0..hours * 2).filter(|cell| crowded(cell / 2)) {
        let entitled = entitled(&wanted[cell], served[cell].iter().sum());
        for caller in 0..CALLERS {
            got[caller] += served[cell][caller];
            due[caller] += entitled[caller];
        }
    }
    let shares = got.iter().zip(&due).filter(|(_, due)| **due > 0.0).map(|(got, due)| got / due);
    jain(&shares.collect::<Vec<_>>())
}

fn quantile(sorted: &[f64], q: f64) -> f64 {
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}
