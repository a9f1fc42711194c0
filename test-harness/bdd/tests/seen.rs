//! Each scenario was seen failing once with its behaviour broken: `docs/scenario-report.md` says with
//! what, and which step noticed. Text only; how the report came about is said in it.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// So many scenarios stand in the report as not seen yet. It only ever gets smaller.
const NOT_SEEN: usize = 0;

/// Where the report lists them.
const LIST: &str = "Not seen yet";

/// The scenarios of a feature with the words of their steps; what stands before the first is everybody's.
fn scenarios(feature: &str) -> Vec<(String, Vec<String>)> {
    let (mut background, mut found): (Vec<String>, Vec<(String, Vec<String>)>) = (Vec::new(), Vec::new());
    let mut quoted = false;
    for line in feature.lines().map(str::trim) {
        if line == "\"\"\"" {
            quoted = !quoted;
        }
        let name = line.strip_prefix("Scenario: ").or_else(|| line.strip_prefix("Scenario Outline: "));
        let word = line.split(' ').next().unwrap_or_default();
        match name {
            _ if quoted => {}
            Some(name) => found.push((name.to_owned(), background.clone())),
            None if ["Given", "When", "Then", "And"].contains(&word) => {
                found.last_mut().map_or(&mut background, |(_, steps)| steps).push(line.to_owned());
            }
            None => {}
        }
    }
    found
}

/// A row of the report.
#[derive(Debug, PartialEq)]
struct Row {
    scenario: String,
    broken: String,
    noticed: String,
}

/// What the report says under each feature's name, and which scenarios it lists as not seen yet.
#[derive(Default)]
struct Report {
    features: BTreeMap<String, Vec<Row>>,
    unseen: Vec<String>,
}

fn report(text: &str) -> Result<Report> {
    let mut report = Report::default();
    let mut section = String::new();
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            title.clone_into(&mut section);
        } else if let Some(scenario) = line.strip_prefix("- ").filter(|_| section == LIST) {
            report.unseen.push(scenario.to_owned());
        } else if let Some(cells) = line.strip_prefix("| ").and_then(|line| line.strip_suffix(" |")) {
            let cells: Vec<_> = cells.split(" | ").map(|cell| cell.replace("\\|", "|")).collect();
            let [scenario, broken, noticed] = <[String; 3]>::try_from(cells)
                .map_err(|cells| anyhow::anyhow!("a row has three cells: {cells:?}"))?;
            if scenario != "scenario" {
                report.features.entry(section.clone()).or_default().push(Row { scenario, broken, noticed });
            }
        }
    }
    Ok(report)
}

/// What is wrong with the rows of a feature.
fn problems(file: &str, feature: &str, rows: &[Row], unseen: &[String]) -> Vec<String> {
    let (known, mut problems) = (scenarios(feature), Vec::new());
    for (name, steps) in &known {
        let told: Vec<_> = rows.iter().filter(|row| row.scenario == *name).collect();
        match told.as_slice() {
            [] if unseen.contains(name) => {}
            [] => problems.push(format!("{file}: nobody has seen this fail: {name}")),
            _ if unseen.contains(name) => problems.push(format!("{file}: seen and not seen: {name}")),
            [row] => {
                if row.broken.trim().is_empty() || !steps.contains(&row.noticed) {
                    problems.push(format!("{file}: {name} has no such step: {row:?}"));
                }
            }
            _ => problems.push(format!("{file}: told twice: {name}")),
        }
    }
    let gone = rows.iter().filter(|row| !known.iter().any(|(name, _)| *name == row.scenario));
    problems.extend(gone.map(|row| format!("{file}: there is no such scenario: {}", row.scenario)));
    problems
}

/// PROOF-013
#[test]
fn every_scenario_was_seen_failing_with_its_behaviour_broken() -> Result<()> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = here.join("../../docs/scenario-report.md");
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let Report { features: mut rows, unseen } = report(&text)?;
    let (mut wrong, mut names, mut seen) = (Vec::new(), Vec::new(), 0);
    for file in std::fs::read_dir(here.join("features")).context("listing the features")? {
        let path = file?.path();
        let file = path.file_name().and_then(|name| name.to_str()).context("a name")?.to_owned();
        let feature = std::fs::read_to_string(&path).with_context(|| format!("reading {file}"))?;
        let told = rows.remove(&file).unwrap_or_default();
        seen += told.len();
        names.extend(scenarios(&feature).into_iter().map(|(name, _)| name));
        wrong.extend(problems(&file, &feature, &told, &unseen));
    }
    wrong.extend(rows.into_keys().map(|file| format!("there is no feature {file}")));
    let gone = unseen.iter().filter(|name| !names.contains(name));
    wrong.extend(gone.map(|name| format!("{LIST}: there is no such scenario: {name}")));
    ensure!(seen > 150, "the search finds what is there: {seen}");
    ensure!(
        unseen.len() == NOT_SEEN,
        "a new scenario is seen failing first, and the list gets shorter: {unseen:?}"
    );
    ensure!(
        wrong.is_empty(),
        "break what it claims, see it fail, and say so in docs/scenario-report.md:\n{}",
        wrong.join("\n")
    );
    Ok(())
}

/// PROOF-013
#[test]
fn a_report_that_is_not_of_these_scenarios_is_told() -> Result<()> {
    let feature = "Feature: f\nBackground:\nGiven a\nScenario: one\nThen b\n\"\"\"\nThen c\n\"\"\"\n\
        Scenario Outline: two <x>\nThen d \"<x>\"\n";
    let of = |rows: &str, unseen: &[&str]| {
        let text = format!("# r\n\n## f.feature\n\n| scenario | what | step |\n|---|---|---|\n{rows}");
        let mut told = report(&text).unwrap().features;
        let unseen: Vec<_> = unseen.iter().map(|name| (*name).to_owned()).collect();
        problems("f.feature", feature, &told.remove("f.feature").unwrap_or_default(), &unseen).len()
    };
    let (one, two) = ("| one | it is | Then b |\n", "| two <x> | it is | Then d \"<x>\" |\n");
    assert_eq!(of(&format!("{one}{two}"), &[]), 0);
    assert_eq!(of("| one | it is | Given a |\n", &["two <x>"]), 0, "the background is everybody's");
    assert_eq!(of(one, &[]), 1, "nobody has seen it");
    assert_eq!(of(&format!("{one}{two}"), &["one"]), 1, "seen and not seen");
    assert_eq!(of(&format!("{one}{one}{two}"), &[]), 1, "told twice");
    assert_eq!(of(&format!("| one | it is | Then c |\n{two}"), &[]), 1, "no step of it");
    assert_eq!(of(&format!("{one}{two}| three | it is | Then b |\n"), &[]), 1, "a scenario that is gone");
    let listed = report("## Not seen yet\n\n- one\n- two <x>\n")?;
    assert_eq!((listed.features.len(), listed.unseen), (0, vec!["one".to_owned(), "two <x>".to_owned()]));
    Ok(())
}
