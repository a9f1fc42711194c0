//! A step that asserts nothing does not exist: what a scenario says with `Then` can fail, and each says
//! something. Text only, as rustfmt leaves it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// What can say no: an assertion, what is waited for within a limit, a document that is held against its
/// schema, a stream against its order.
const ASSERTS: &[&str] =
    &["ensure!(", "bail!(", "until(", "until_within(", "timeout(", ".check(", ".check_order()"];

/// A function beside the steps.
struct Function {
    /// Whether scenarios reach it by `Then`, and by what words.
    then: Option<String>,
    body: String,
}

/// The functions of a file at its outermost level, by name.
fn functions(text: &str) -> BTreeMap<String, Function> {
    let (mut found, mut then) = (BTreeMap::new(), None);
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.starts_with("#[then(") {
            then = Some(line.to_owned());
        }
        let Some((_, rest)) = line.split_once("fn ").filter(|_| !line.starts_with([' ', '/'])) else {
            continue;
        };
        let name = rest.split(['(', '<']).next().unwrap_or_default().to_owned();
        let body: Vec<_> = lines.by_ref().take_while(|line| *line != "}").collect();
        found.insert(name, Function { then: then.take(), body: body.join("\n") });
    }
    found
}

/// Those that can say no, by themselves or by one of the others that they call.
fn asserting(functions: &BTreeMap<String, Function>) -> BTreeSet<&str> {
    let mut found: BTreeSet<&str> = BTreeSet::new();
    loop {
        let more: Vec<_> = functions
            .iter()
            .filter(|(name, _)| !found.contains(name.as_str()))
            .filter(|(_, function)| {
                let calls = |name: &&str| called(&function.body, name);
                ASSERTS.iter().any(|words| function.body.contains(words)) || found.iter().any(calls)
            })
            .map(|(name, _)| name.as_str())
            .collect();
        if more.is_empty() {
            return found;
        }
        found.extend(more);
    }
}

/// Not as a part of another name, and not a method.
fn called(body: &str, name: &str) -> bool {
    let of_a_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    let call = format!("{name}(");
    body.match_indices(&call).any(|(at, _)| !body[..at].ends_with(of_a_name))
}

/// Scenarios of a feature that do not end with what must hold, by name.
fn without_end(feature: &str) -> Vec<String> {
    let (mut found, mut scenario, mut says, mut quoted) = (Vec::new(), None, false, false);
    let mut over = |scenario: Option<&str>, says: bool| match scenario {
        Some(name) if !says => found.push(name.to_owned()),
        _ => {}
    };
    for line in feature.lines().map(str::trim) {
        if line == "\"\"\"" {
            quoted = !quoted;
        }
        let word = line.split(' ').next().unwrap_or_default();
        match word {
            _ if quoted => {}
            "Scenario:" | "Scenario" => {
                over(scenario.replace(line), says);
                says = false;
            }
            "Then" => says = true,
            "Given" | "When" => says = false,
            _ => {}
        }
    }
    over(scenario, says);
    found
}

fn each(dir: &str, mut of: impl FnMut(&str, &str) -> Result<()>) -> Result<()> {
    for file in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(dir))? {
        let path = file?.path();
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        of(&path.display().to_string(), &text)?;
    }
    Ok(())
}

/// PROOF-011
#[test]
fn what_a_scenario_says_must_hold_can_fail() -> Result<()> {
    let (mut mute, mut steps) = (Vec::new(), 0);
    each("tests/bdd", |_, text| {
        let functions = functions(text);
        let can = asserting(&functions);
        let said = functions.iter().filter_map(|(name, function)| Some((name, function.then.as_ref()?)));
        for (name, words) in said {
            steps += 1;
            if !can.contains(name.as_str()) {
                mute.push(words.clone());
            }
        }
        Ok(())
    })?;
    ensure!(steps > 60, "the search finds what is there: {steps}");
    ensure!(mute.is_empty(), "these assert nothing:\n{}", mute.join("\n"));
    Ok(())
}

/// PROOF-011
#[test]
fn every_scenario_ends_with_what_must_hold() -> Result<()> {
    let mut endless = Vec::new();
    each("features", |file, text| {
        endless.extend(without_end(text).into_iter().map(|scenario| format!("{file}: {scenario}")));
        Ok(())
    })?;
    ensure!(endless.is_empty(), "nothing has to hold at the end of\n{}", endless.join("\n"));
    Ok(())
}

#[test]
fn a_step_counts_by_what_it_does() {
    let text = "#[then(\"a\")]\nfn a(lab: &mut Lab) -> Result<()> {\n    look(lab)\n}\n\n\
        #[then(\"b\")]\nasync fn b() -> Result<()> {\n    ready().await\n}\n\n\
        #[when(\"c\")]\nfn c() {\n    d()\n}\n\n\
        async fn ready() {\n    until(\"x\", || y).await\n}\n\nfn look(lab: &Lab) {\n    lab.ready()\n}\n";
    let functions = functions(text);
    let can = asserting(&functions);
    assert_eq!(can.into_iter().collect::<Vec<_>>(), ["b", "ready"]);
    assert_eq!(functions.values().filter(|function| function.then.is_some()).count(), 2);
}

#[test]
fn a_scenario_counts_by_its_last_step() {
    let feature = "Scenario: good\nWhen a\nThen b\nAnd c\n\nScenario: bad\nThen a\nWhen b\n\"\"\"\nThen x\n\"\"\"\nAnd c\n\
        Scenario Outline: good, too\nThen a\n| Given |\n";
    assert_eq!(without_end(feature), ["Scenario: bad"]);
}
