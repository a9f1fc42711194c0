//! No test sleeps to synchronise: where a test sleeps, it is between two looks at a condition, by a clock
//! that stands still, or beside the reason why that time is what is tested. Text only, as rustfmt leaves it.

use std::path::Path;

/// What is slow on purpose, and no test.
const PRODUCTS: &[&str] = &["test-harness/stub-llama/src/"];

/// Words that say that a block is gone through until something holds.
const LOOKS: &[&str] = &["until(", "until_within(", "reached(", "reached_within("];

/// Sleeps of a file's tests for which nothing speaks, by line.
fn unexplained(name: &str, text: &str) -> Vec<usize> {
    let lines: Vec<&str> = text.lines().collect();
    let tests = first_of_tests(name, &lines);
    let sleeps = (tests..lines.len()).filter(|at| is_sleep(lines[*at]));
    let bare = sleeps.filter(|at| {
        let before = &lines[..*at];
        let said = before.last().is_some_and(|line| line.trim_start().starts_with("//"));
        !(said || is_pause(before, lines[*at]) || stands_still(before, lines[*at]))
    });
    bare.map(|at| at + 1).collect()
}

/// Where the tests of a file begin.
fn first_of_tests(name: &str, lines: &[&str]) -> usize {
    let all = name.contains("/tests/") || name.ends_with("/tests.rs") || name.starts_with("test-harness/");
    match all {
        true if PRODUCTS.iter().any(|product| name.starts_with(product)) => lines.len(),
        true => 0,
        false => lines.iter().position(|line| *line == "#[cfg(test)]").unwrap_or(lines.len()),
    }
}

fn is_sleep(line: &str) -> bool {
    let code = !line.trim_start().starts_with("//");
    let calls = ["time::sleep(", "time::sleep_until(", "thread::sleep(", "{ sleep(", " sleep(", "(sleep("];
    code && calls.iter().any(|call| line.contains(call)) && !line.contains("fn sleep(")
        // In quotes it is a shell's, in a program that a test starts.
        && line.split("sleep").next().is_none_or(|before| before.matches('"').count() % 2 == 0)
}

/// In a block that looks, sleeps and looks again.
fn is_pause(before: &[&str], line: &str) -> bool {
    let mut inside = indent(line);
    for outer in before.iter().rev().filter(|line| !line.trim().is_empty()) {
        if indent(outer) >= inside {
            continue;
        }
        inside = indent(outer);
        let words = outer.trim();
        let begins = |word: &str| words.split([' ', '(']).any(|found| found == word);
        if begins("fn") {
            return false;
        }
        if begins("loop") || begins("while") || LOOKS.iter().any(|look| words.contains(look)) {
            return true;
        }
    }
    false
}

/// In a test whose clock moves only when nothing else does; a thread knows no such clock.
fn stands_still(before: &[&str], line: &str) -> bool {
    let clock = before.iter().rev().find(|line| {
        let line = line.trim();
        line.starts_with("#[tokio::test") || line.starts_with("#[test]") || line.contains("start_paused(")
    });
    !line.contains("thread::") && clock.is_some_and(|line| line.contains("start_paused"))
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// PROOF-010
#[test]
fn no_test_sleeps_to_synchronise() {
    let (mut bare, mut sleeps) = (Vec::new(), 0);
    for tree in ["bin", "contracts", "libs", "test-harness", "xtask"] {
        for file in crate::trace::files(&crate::root().join(tree), "rs").unwrap() {
            let name = file.strip_prefix(crate::root()).unwrap_or(Path::new("")).display().to_string();
            let text = std::fs::read_to_string(&file).unwrap();
            sleeps += text.lines().filter(|line| is_sleep(line)).count();
            bare.extend(unexplained(&name, &text).into_iter().map(|line| format!("{name}:{line}")));
        }
    }
    assert!(sleeps > 50, "the search finds what is there: {sleeps}");
    assert!(
        bare.is_empty(),
        "wait for what is waited for, or say above it why this time:\n{}",
        bare.join("\n")
    );
}

#[test]
fn a_sleep_is_told_from_a_pause_between_two_looks() {
    const NONE: [usize; 0] = [];
    let of = |text: &str| unexplained("libs/a/tests/a.rs", text);
    let nap = "        tokio::time::sleep(SEC).await;";
    assert_eq!(of(&format!("#[tokio::test]\nasync fn a() {{\n    start();\n{nap}\n}}")), [4]);
    assert_eq!(of(&format!("#[tokio::test(start_paused = true)]\nasync fn a() {{\n{nap}\n}}")), NONE);
    assert_eq!(of(&format!("#[tokio::test]\nasync fn a() {{\n    loop {{\n{nap}\n    }}\n}}")), NONE);
    assert_eq!(of(&format!("#[tokio::test]\nasync fn a() {{\n    for _ in 0..9 {{\n{nap}\n    }}\n}}")), [4]);
    assert_eq!(of(&format!("#[tokio::test]\nasync fn a() {{\n    // So long is quiet.\n{nap}\n}}")), NONE);
    // A loop that is over is none.
    let over = format!("fn a() {{\n    loop {{\n        look();\n    }}\n    {{\n{nap}\n    }}\n}}");
    assert_eq!(of(&over), [6]);
    let thread = "#[tokio::test(start_paused = true)]\nfn a() {\n    std::thread::sleep(SEC);\n}";
    assert_eq!(of(thread), [3]);
    assert_eq!(of("fn a() {\n    sh(\"trap 'x' TERM; sleep 600\");\n}"), NONE);
    // Of a source file only its tests.
    let source = format!("fn a() {{\n{nap}\n}}\n#[cfg(test)]\nmod tests {{\n{nap}\n}}");
    assert_eq!(unexplained("libs/a/src/a.rs", &source), [6]);
}
