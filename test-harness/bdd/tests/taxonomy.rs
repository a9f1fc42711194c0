//! The error codes that the features provoke are all that there are.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};

const CONTRACT: &str = include_str!("../../../contracts/openapi/orchestratord.json");

/// Codes that a scenario asserts: in the words of a step, or in the column `code` of its examples.
fn provoked(feature: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut column = None;
    for line in feature.lines().map(str::trim) {
        if let Some(row) = line.strip_prefix('|') {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            match column {
                None => column = Some(cells.iter().position(|cell| *cell == "code")),
                Some(at) => found.extend(at.and_then(|at| cells.get(at)).map(|cell| (*cell).to_owned())),
            }
            continue;
        }
        column = None;
        for words in ["Then the answer is ", "And the answer is ", " ends with error "] {
            let Some((_, rest)) = line.split_once(words) else { continue };
            found.extend(rest.rsplit('"').nth(1).filter(|code| !code.starts_with('<')).map(str::to_owned));
        }
    }
    found
}

/// OV-006
#[test]
fn every_code_of_the_contract_is_provoked_by_a_scenario_and_no_other() -> Result<()> {
    let contract: serde_json::Value = serde_json::from_str(CONTRACT).context("reading the contract")?;
    let codes = contract.pointer("/components/schemas/ErrorCode/enum").and_then(|codes| codes.as_array());
    let codes: BTreeSet<String> = codes
        .context("the contract lists no codes")?
        .iter()
        .filter_map(|code| code.as_str().map(str::to_owned))
        .collect();
    let mut seen = BTreeSet::new();
    for file in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("features"))? {
        let path = file?.path();
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        seen.extend(provoked(&text));
    }
    let never: Vec<_> = codes.difference(&seen).collect();
    let unknown: Vec<_> = seen.difference(&codes).collect();
    ensure!(never.is_empty(), "no scenario provokes {never:?}");
    ensure!(unknown.is_empty(), "the contract does not know {unknown:?}");
    Ok(())
}

#[test]
fn a_code_counts_where_it_is_asserted() {
    let feature = "Then the answer is 429 with code \"A\"\nAnd the answer is <status> with code \"<code>\"\n\
        | body | code |\n| B | C |\nAnd the answer is 202\nThen the stream of \"t\" ends with error \"D\"\n\
        When \"E\" is said\n| F | G |\n| H | I |";
    assert_eq!(provoked(feature).into_iter().collect::<Vec<_>>(), ["A", "C", "D"]);
}
