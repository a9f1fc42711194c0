//! The evidence of a run: one event for each scenario as it ends, and a report of all of them.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use cucumber::event::ScenarioFinished;
use cucumber::gherkin::{Feature, Scenario};
use proof_bundle::{Kind, ProofBundle};
use serde_json::json;

/// What is kept while the scenarios run.
pub(crate) struct Evidence {
    began: Instant,
    kept: Mutex<Kept>,
}

struct Kept {
    bundle: ProofBundle,
    /// By feature, in the order in which they ended.
    passed: BTreeMap<String, Vec<String>>,
    failed: Vec<String>,
}

impl Evidence {
    pub(crate) fn begin() -> std::io::Result<Self> {
        let bundle = ProofBundle::create(env!("CARGO_MANIFEST_DIR"), Kind::Bdd, None)?;
        Ok(Self {
            began: Instant::now(),
            kept: Mutex::new(Kept { bundle, passed: BTreeMap::new(), failed: Vec::new() }),
        })
    }

    /// A scenario has ended.
    pub(crate) fn ended(
        &self,
        feature: &Feature,
        scenario: &Scenario,
        how: &ScenarioFinished,
    ) -> std::io::Result<()> {
        let (outcome, why) = match how {
            ScenarioFinished::StepPassed => ("passed", None),
            // A step that nobody wrote asserts nothing.
            ScenarioFinished::StepSkipped => ("failed", Some("a step is not known".to_owned())),
            ScenarioFinished::StepFailed(_, _, error) => ("failed", Some(error.to_string())),
            ScenarioFinished::BeforeHookFailed(_) => ("failed", Some("it could not begin".to_owned())),
        };
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        match &why {
            None => kept.passed.entry(feature.name.clone()).or_default().push(scenario.name.clone()),
            Some(why) => kept.failed.push(format!("{} / {}: {why}", feature.name, scenario.name)),
        }
        kept.bundle.append_event(&json!({
            "feature": feature.name, "scenario": scenario.name, "line": scenario.position.line,
            "requirements": scenario.tags, "outcome": outcome, "why": why,
            "ended_ms": u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX),
        }))
    }

    /// Writes the report and says where the bundle lies.
    pub(crate) fn finish(&self) -> std::io::Result<std::path::PathBuf> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let passed: usize = kept.passed.values().map(Vec::len).sum();
        let mut report = format!("# Behaviour\n\n{passed} scenarios passed, {} failed.\n", kept.failed.len());
        for failure in &kept.failed {
            report.push_str(&format!("\n- {}\n", failure.replace('\n', "\n  ")));
        }
        for (feature, scenarios) in &kept.passed {
            report.push_str(&format!("\n## {feature}\n\n{}", listed(scenarios)));
        }
        kept.bundle.report(&report)
    }
}

/// Each once, in the order in which they ended: the examples of an outline have one name.
fn listed(scenarios: &[String]) -> String {
    let mut seen: Vec<(&str, usize)> = Vec::new();
    for name in scenarios {
        match seen.iter_mut().find(|(known, _)| known == name) {
            Some((_, times)) => *times += 1,
            None => seen.push((name, 1)),
        }
    }
    let line = |(name, times): (&str, usize)| match times {
        1 => format!("- {name}\n"),
        _ => format!("- {name} ({times} examples)\n"),
    };
    seen.into_iter().map(line).collect()
}
