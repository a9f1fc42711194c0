//! The table: what was injected, what was promised, what was measured; and the same as a proof bundle.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use proof_bundle::{Kind, ProofBundle};
use serde_json::json;

use crate::bars::Bar;
use crate::load::Load;
use crate::measure::{Measure, shown};

/// One bar, run once.
pub(crate) struct Attempt {
    pub(crate) seed: u64,
    pub(crate) measures: Vec<Measure>,
    /// Why it could not be measured to its end.
    pub(crate) error: Option<String>,
    pub(crate) load: Load,
    pub(crate) took: Duration,
    /// Ends of logs, when it failed.
    pub(crate) logs: String,
    /// The attempt that an overrun machine spoiled.
    pub(crate) before: Option<Box<Attempt>>,
}

impl Attempt {
    pub(crate) fn held(&self) -> bool {
        self.error.is_none() && self.measures.iter().all(Measure::held)
    }

    /// Everything happened as promised, but too late or too much.
    pub(crate) fn missed_only_times(&self) -> bool {
        let mut missed = self.measures.iter().filter(|measure| !measure.held()).peekable();
        self.error.is_none() && missed.peek().is_some() && missed.all(Measure::depends_on_the_machine)
    }

    pub(crate) fn line(&self, bar: &Bar) -> String {
        let verdict = if self.held() { "held" } else { "FAILED" };
        format!("{:<4} {verdict} in {}: {}", bar.id, shown(self.took), self.found())
    }

    fn found(&self) -> String {
        let mut found: Vec<String> = self.measures.iter().map(Measure::to_string).collect();
        found.extend(self.error.clone());
        found.join("; ")
    }
}

/// All of it.
pub(crate) struct Report {
    pub(crate) bars: Vec<Bar>,
    pub(crate) attempts: BTreeMap<&'static str, Vec<Attempt>>,
    pub(crate) seed: u64,
    pub(crate) full: bool,
    pub(crate) took: Duration,
}

impl Report {
    pub(crate) fn held(&self) -> bool {
        self.bars.iter().all(|bar| self.of(bar).iter().all(Attempt::held) && !self.of(bar).is_empty())
    }

    fn of(&self, bar: &Bar) -> &[Attempt] {
        self.attempts.get(bar.id).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn table(&self) -> String {
        let mut table = format!(
            "\n| | injected | promised | measured ({}) | |\n|---|---|---|---|---|\n",
            if self.full { "full length" } else { "fast pass" }
        );
        for bar in &self.bars {
            let attempts = self.of(bar);
            let held = attempts.iter().filter(|attempt| attempt.held()).count();
            let again = attempts.iter().filter(|attempt| attempt.before.is_some()).count();
            let again = if again == 0 { String::new() } else { format!(", {again} measured twice") };
            table.push_str(&format!(
                "| {} | {} | {} | {} | {held} of {}{again} |\n",
                bar.id,
                bar.injected,
                bar.promised,
                worst(attempts),
                attempts.len()
            ));
        }
        table.push_str(&format!("\nseed {}, {} in all\n", self.seed, shown(self.took)));
        table
    }

    /// Each failure with its numbers, logs and seed; and what an overrun machine spoiled.
    pub(crate) fn failures(&self) -> Vec<String> {
        let mut texts = Vec::new();
        for bar in &self.bars {
            for attempt in self.of(bar) {
                if let Some(before) = &attempt.before {
                    texts.push(format!(
                        "{} was measured again: {}; at first: {}",
                        bar.id,
                        before.load,
                        before.found()
                    ));
                }
                if !attempt.held() {
                    texts.push(format!(
                        "{}{}\n{}\nagain: cargo test -p test-harness-chaos -- {}{} --seed {}",
                        attempt.logs,
                        attempt.line(bar),
                        attempt.load,
                        bar.id,
                        if self.full { " --full" } else { "" },
                        self.seed
                    ));
                }
            }
        }
        texts
    }

    /// Writes the proof bundle.
    pub(crate) fn keep(&self) -> Result<PathBuf> {
        let mut bundle = ProofBundle::create(env!("CARGO_MANIFEST_DIR"), Kind::Chaos, None)
            .context("making a proof bundle")?;
        bundle.fact("seed", self.seed).context("writing the seed")?;
        bundle.fact("full", self.full).context("writing the length")?;
        for bar in &self.bars {
            for (number, attempt) in self.of(bar).iter().enumerate() {
                for attempt in attempt.before.as_deref().into_iter().chain([attempt]) {
                    let event = json!({
                        "bar": bar.id, "run": number, "seed": attempt.seed, "held": attempt.held(),
                        "took_ms": attempt.took.as_millis() as u64, "error": attempt.error,
                        "measured": attempt.measures.iter().map(Measure::to_string).collect::<Vec<_>>(),
                        "load": attempt.load.to_string(),
                    });
                    bundle.append_event(&event).context("writing an event")?;
                    if !attempt.logs.is_empty() {
                        let name = format!("{}-{number}.log", bar.id);
                        bundle.write(&name, &attempt.logs).context("writing logs")?;
                    }
                }
            }
        }
        let failures = self.failures().join("\n\n");
        bundle.finish(&format!("# Chaos\n{}\n{failures}\n", self.table())).context("writing the report")
    }
}

/// Over all runs of a bar, what was worst; in the order of the first run.
fn worst(attempts: &[Attempt]) -> String {
    let mut order: Vec<String> = Vec::new();
    let mut all: BTreeMap<String, Measure> = BTreeMap::new();
    let mut errors: Vec<String> = Vec::new();
    for attempt in attempts {
        for measure in &attempt.measures {
            let name = measure.what.clone();
            let worse = match all.remove(&name) {
                Some(known) => known.worse(measure.clone()),
                None => {
                    order.push(name.clone());
                    measure.clone()
                }
            };
            all.insert(name, worse);
        }
        errors.extend(attempt.error.clone());
    }
    let mut shown: Vec<String> =
        order.iter().filter_map(|name| all.get(name)).map(Measure::to_string).collect();
    shown.extend(errors.into_iter().take(1));
    shown.join("; ").replace('|', "/").replace('\n', " ")
}
