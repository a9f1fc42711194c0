//! `cargo xtask trace`: which test holds which requirement. Requirements are the numbered sentences of
//! `.specs/`; a test cites them in its doc comment, a scenario in its tags. Text only: nothing here
//! knows whether a test passes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Where tests are.
const TREES: &[&str] = &["bin", "contracts", "libs", "test-harness", "xtask"];

/// The founding documents' own ids. The table of `00-overview.md` says which requirements hold each now.
const FOUNDING: [&str; 8] = [
    "OC-POOL-3101",
    "OC-POOL-3102",
    "ORCHD-HANDOFF-AUTOBIND-0002",
    "ORCHD-AUTOBIND-UT-1001",
    "ORCHD-STREAM-UT-1101",
    "ENGINE-PROV-POOL-NOTIFY-0003",
    "ENGINE-PROV-CLEANUP-0004",
    "ENGINE-PROV-GPU-ENFORCE-0007",
];

/// A founding id and the requirements that hold it now.
type Founding = BTreeMap<String, Vec<String>>;

/// A requirement's id and its sentence.
type Requirements = BTreeMap<String, String>;

/// A cited id and the tests that cite it, as `path::test`.
type Citations = BTreeMap<String, BTreeSet<String>>;

pub(crate) fn print() -> Result<String> {
    let (requirements, citations, founding) = (requirements()?, citations()?, founding()?);
    let mut out = String::new();
    let mut row = |id: &str, ids: &[String]| {
        out.push_str(&format!("{id}\n"));
        let tests: BTreeSet<_> = ids.iter().filter_map(|id| citations.get(id)).flatten().collect();
        tests.iter().for_each(|test| out.push_str(&format!("    {test}\n")));
    };
    requirements.keys().for_each(|id| row(id, std::slice::from_ref(id)));
    for (id, held_by) in &founding {
        row(&format!("{id} (held by {})", held_by.join(", ")), held_by);
    }
    let problems = problems(&requirements, &citations, &founding);
    out.push_str(&format!("{} requirements, {} problems\n", requirements.len(), problems.len()));
    problems.iter().for_each(|problem| out.push_str(&format!("    {problem}\n")));
    Ok(out)
}

fn problems(requirements: &Requirements, citations: &Citations, founding: &Founding) -> Vec<String> {
    let families: BTreeSet<&str> = requirements.keys().map(|id| family(id)).collect();
    let uncited = requirements.keys().filter(|id| !citations.contains_key(*id));
    let unknown = citations
        .iter()
        .filter(|(id, _)| families.contains(family(id)) && !requirements.contains_key(*id))
        .map(|(id, tests)| format!("{id} is cited by {} and is no requirement", joined(tests)));
    let homeless = founding.iter().flat_map(|(id, held_by)| {
        let lost = held_by.iter().filter(|by| !requirements.contains_key(*by));
        lost.map(move |by| format!("{id} is held by {by}, which is no requirement"))
    });
    let forgotten = FOUNDING
        .iter()
        .filter(|id| founding.get(**id).is_none_or(Vec::is_empty))
        .map(|id| format!("{id} is not in the table of .specs/00-overview.md, or nothing holds it"));
    let uncited = uncited.map(|id| format!("{id} is cited by no test"));
    uncited.chain(unknown).chain(homeless).chain(forgotten).collect()
}

/// The table of founding ids: id, what it asked, what holds it.
fn founding() -> Result<Founding> {
    let page = crate::root().join(".specs/00-overview.md");
    let text = std::fs::read_to_string(&page).with_context(|| format!("reading {}", page.display()))?;
    Ok(founding_in(&text))
}

fn founding_in(text: &str) -> Founding {
    let rows = text.lines().filter_map(|line| {
        let cells: Vec<&str> = line.trim().strip_prefix('|')?.split('|').map(str::trim).collect();
        let [id, _asked, held_by, ..] = cells[..] else { return None };
        let held_by = held_by.split(',').map(|id| id.trim().to_owned()).filter(|id| !id.is_empty());
        id.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'-').then_some(())?;
        id.ends_with(|c: char| c.is_ascii_digit()).then(|| (id.to_owned(), held_by.collect()))
    });
    rows.collect()
}

fn joined(tests: &BTreeSet<String>) -> String {
    tests.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// Everything before the number.
fn family(id: &str) -> &str {
    id.rsplit_once('-').map_or(id, |(family, _)| family)
}

fn requirements() -> Result<Requirements> {
    let mut found = BTreeMap::new();
    for page in files(&crate::root().join(".specs"), "md")? {
        let text = std::fs::read_to_string(&page).with_context(|| format!("reading {}", page.display()))?;
        for line in text.lines() {
            let numbered = line.strip_prefix("- **").and_then(|rest| rest.split_once("** "));
            if let Some((id, sentence)) = numbered {
                let before = found.insert(id.to_owned(), sentence.to_owned());
                anyhow::ensure!(before.is_none(), "{id} stands twice in .specs");
            }
        }
    }
    Ok(found)
}

fn citations() -> Result<Citations> {
    let mut found = Citations::new();
    for tree in TREES {
        for file in files(&crate::root().join(tree), "rs")? {
            let text =
                std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
            let name = file.strip_prefix(crate::root()).unwrap_or(&file).display().to_string();
            cited_by_tests(&text, &mut |id, test| cite(&mut found, id, &format!("{name}::{test}")));
        }
        for file in files(&crate::root().join(tree), "feature")? {
            let text =
                std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
            let name = file.strip_prefix(crate::root()).unwrap_or(&file).display().to_string();
            cited_by_scenarios(&text, &mut |id, test| cite(&mut found, id, &format!("{name}: {test}")));
        }
    }
    Ok(found)
}

fn cite(citations: &mut Citations, id: &str, test: &str) {
    citations.entry(id.to_owned()).or_default().insert(test.to_owned());
}

/// Ids in the doc comment of a function with a test attribute, or behind that attribute.
fn cited_by_tests(text: &str, cite: &mut dyn FnMut(&str, &str)) {
    let (mut docs, mut is_test, mut in_attribute) = (Vec::new(), false, false);
    for line in text.lines().map(str::trim) {
        if let Some(doc) = line.strip_prefix("///") {
            docs.extend(ids(doc));
        } else if in_attribute || line.starts_with("#[") {
            let (attribute, remark) = line.split_once("//").unwrap_or((line, ""));
            docs.extend(ids(remark));
            is_test |= attribute.starts_with("#[test]") || attribute.contains("::test");
            in_attribute = !attribute.trim_end().ends_with(']');
        } else {
            if let (true, Some(name)) = (is_test, function(line)) {
                docs.iter().for_each(|id| cite(id, name));
            }
            (docs, is_test) = (Vec::new(), false);
        }
    }
}

fn function(line: &str) -> Option<&str> {
    let (before, after) = line.split_once("fn ")?;
    let is_function = before.split_whitespace().all(|word| matches!(word, "async" | "pub" | "pub(crate)"));
    is_function.then(|| after.split(['(', '<']).next()).flatten()
}

/// Tags of a scenario: `@SEC-001`.
fn cited_by_scenarios(text: &str, cite: &mut dyn FnMut(&str, &str)) {
    let mut tags = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with('@') {
            tags.extend(ids(line));
        } else if let Some((_, scenario)) =
            line.split_once("Scenario:").or_else(|| line.split_once("Scenario Outline:"))
        {
            tags.drain(..).for_each(|id| cite(id, scenario.trim()));
        } else if !line.is_empty() {
            tags.clear();
        }
    }
}

/// Words such as `ORCHD-ADMIT-001`: capitals, then a number of three digits or more.
fn ids(text: &str) -> impl Iterator<Item = &str> {
    let word = |c: char| !(c.is_ascii_alphanumeric() || c == '-');
    text.split(word).filter(|word| {
        let Some((family, number)) = word.rsplit_once('-') else { return false };
        number.len() >= 3
            && number.bytes().all(|b| b.is_ascii_digit())
            && family.len() >= 2
            && family.bytes().all(|b| b.is_ascii_uppercase() || b == b'-')
    })
}

/// Files with this extension, in any depth, in a stable order.
pub(crate) fn files(dir: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(|| format!("listing {}", dir.display()))? {
        let path = entry.with_context(|| format!("listing {}", dir.display()))?.path();
        if path.is_dir() && !path.ends_with("target") {
            found.extend(files(&path, extension)?);
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_requirement_is_cited_and_every_citation_is_a_requirement() {
        let problems = problems(&requirements().unwrap(), &citations().unwrap(), &founding().unwrap());
        assert!(problems.is_empty(), "cargo xtask trace shows the whole matrix:\n{}", problems.join("\n"));
    }

    #[test]
    fn only_what_stands_at_a_test_cites() {
        let text = "/// SEC-001, SHA-256\n#[tokio::test(\n    flavor = \"x\"\n)]\nasync fn one() {}\n\
                    /// SEC-002\nfn no_test() {}\n// SEC-003\n#[test]\nfn three() {}\n\
                    #[test]\n/// ORCHD-A-004: why\n#[cfg(x)]\nfn four() {}\n#[test] // SEC-005\nfn five() {}\n";
        let mut found = Vec::new();
        cited_by_tests(text, &mut |id, test| found.push(format!("{id} {test}")));
        assert_eq!(found, ["SEC-001 one", "SHA-256 one", "ORCHD-A-004 four", "SEC-005 five"]);
    }

    #[test]
    fn the_tags_of_a_scenario_cite() {
        let text = "Feature: x\n\n  @SEC-001 @slow\n  @OV-002\n  Scenario: it holds\n    Given SEC-003\n  Scenario: no\n";
        let mut found = Vec::new();
        cited_by_scenarios(text, &mut |id, test| found.push(format!("{id} {test}")));
        assert_eq!(found, ["SEC-001 it holds", "OV-002 it holds"]);
    }

    /// PROOF-002
    #[test]
    fn every_founding_id_is_in_the_table_and_its_heading_is_none() {
        let table = "| founding id | it asked | held by |\n|---|---|---|\n| OC-X-1 | a | B-001, C-002 |\n";
        let expected = BTreeMap::from([("OC-X-1".to_owned(), vec!["B-001".to_owned(), "C-002".to_owned()])]);
        assert_eq!(founding_in(table), expected);
        let found = founding().unwrap();
        assert_eq!(found.keys().map(String::as_str).collect::<BTreeSet<_>>(), BTreeSet::from(FOUNDING));
    }

    #[test]
    fn what_is_uncited_unknown_or_homeless_is_a_problem() {
        let requirements = BTreeMap::from([("A-001".to_owned(), String::new())]);
        let mut citations = Citations::new();
        cite(&mut citations, "A-002", "t");
        cite(&mut citations, "SHA-256", "t");
        let founding = founding_in("| OC-POOL-3101 | it | A-001, A-009 |\n| OC-POOL-3102 | it | |\n");
        let problems = problems(&requirements, &citations, &founding);
        assert_eq!(
            problems[..4],
            [
                "A-001 is cited by no test",
                "A-002 is cited by t and is no requirement",
                "OC-POOL-3101 is held by A-009, which is no requirement",
                "OC-POOL-3102 is not in the table of .specs/00-overview.md, or nothing holds it",
            ]
        );
        assert_eq!(problems.len(), 3 + FOUNDING.len() - 1);
    }
}
