//! Walls inside crates, which no dependency list can show: who may be unsafe, and who may name whom.

use std::path::PathBuf;

/// Lines of code (no comments) below `tree` that contain `word`, as `path:line`.
fn lines_with(tree: &str, word: &str) -> Vec<String> {
    let root = crate::root();
    let mut found = Vec::new();
    for file in crate::trace::files(&root.join(tree), "rs").unwrap() {
        let text = std::fs::read_to_string(&file).unwrap();
        let name = file.strip_prefix(&root).unwrap().to_owned();
        found.extend(positions(&text, word).map(|line| at(&name, line)));
    }
    found
}

fn at(file: &std::path::Path, line: usize) -> String {
    format!("{}:{line}", file.display())
}

fn positions<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let is_code = |line: &str| !line.trim_start().starts_with("//");
    let numbered = text.lines().enumerate().filter(move |(_, line)| is_code(line));
    numbered.filter(move |(_, line)| has_word(line, word)).map(|(n, _)| n + 1)
}

/// Not as a part of another name, and not in quotes.
fn has_word(line: &str, word: &str) -> bool {
    let of_a_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let (before, after) = (&line[..at], &line[at + word.len()..]);
        let goes_on = !word.ends_with("::") && after.starts_with(of_a_name);
        !before.ends_with(of_a_name) && !before.ends_with('"') && !goes_on
    })
}

/// SEC-008
#[test]
fn only_the_crate_that_spawns_and_the_trainers_multiplication_are_unsafe() {
    let allowed = |place: &String| {
        place.starts_with("libs/child/src/") || place.starts_with("xtask/haiku-trainer/src/matmul.rs")
    };
    let trees = ["bin", "contracts", "libs", "test-harness", "xtask"];
    let places: Vec<String> = trees.iter().flat_map(|tree| lines_with(tree, "unsafe")).collect();
    let (inside, outside): (Vec<_>, Vec<_>) = places.into_iter().partition(allowed);
    assert!(!inside.is_empty(), "the search finds what is there");
    let outside: Vec<_> = outside.iter().filter(|place| !place.starts_with("xtask/src/walls.rs")).collect();
    assert!(outside.is_empty(), "{outside:?}");
}

/// OV-002, OV-003
#[test]
fn only_the_composition_of_orchestratord_names_the_manager_and_the_adapter() {
    for word in ["pool_managerd::", "worker_adapters_llamacpp_http::"] {
        let places = lines_with("bin/orchestratord/src", word);
        let composition = PathBuf::from("bin/orchestratord/src/compose.rs").display().to_string();
        assert!(!places.is_empty(), "the search finds what is there");
        assert!(places.iter().all(|place| place.starts_with(&composition)), "{word}: {places:?}");
    }
}

/// PROOF-007: a client that holds nothing against the contract is for engines, or checks by itself.
#[test]
fn suites_ask_daemons_through_the_client_that_holds_answers_against_the_contract() {
    let allowed = [
        // The client itself.
        "test-harness/e2e-haiku/src/client.rs:",
        "test-harness/e2e-haiku/src/api.rs:",
        // Of engines.
        "libs/pool-managerd/tests/it/harness/generation.rs:",
        "test-harness/chaos/tests/chaos/house.rs:",
        "test-harness/determinism-suite/src/engine.rs:",
    ];
    let trees = [
        "bin/orchestratord/src/tests",
        "bin/orchestratord/tests",
        "libs/pool-managerd/tests",
        "test-harness",
    ];
    let words = ["reqwest::Client::builder", "reqwest::Client::new", "reqwest::get"];
    let places = || trees.iter().flat_map(|tree| words.iter().flat_map(|word| lines_with(tree, word)));
    for file in allowed {
        assert!(places().any(|place| place.starts_with(file)), "{file} needs no exception any more");
    }
    let outside: Vec<_> =
        places().filter(|place| !allowed.iter().any(|file| place.starts_with(file))).collect();
    assert!(outside.is_empty(), "{outside:?}");
}

#[test]
fn a_word_is_found_whole_and_only_in_code() {
    let text = "// unsafe\nunsafe { }\nlet unsafe_flags = \"unsafe\";\n    #![forbid(unsafe_code)]\n";
    assert_eq!(positions(text, "unsafe").collect::<Vec<_>>(), [2]);
}
