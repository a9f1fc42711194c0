//! `cargo xtask proof PACKAGE...`: runs a package's unit and integration tests and keeps what came of each
//! in proof bundles. The other suites keep theirs by themselves.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use proof_bundle::{Kind, ProofBundle};
use serde_json::json;

/// A test and what came of it.
#[derive(Debug, PartialEq, Eq)]
struct Ended<'a> {
    test: &'a str,
    outcome: &'a str,
}

pub(crate) fn run(packages: &[String]) -> Result<()> {
    let members = crate::floors::members()?;
    let mut failed = Vec::new();
    for package in packages {
        ensure!(members.contains(package), "{package} is no package of this workspace");
        let dir = crate::floors::directory(package)?;
        let has = |path: &str| dir.join(path).exists();
        let unit = if has("src/lib.rs") { &["--lib", "--bins"][..] } else { &["--bins"] };
        let suites = [(Kind::Unit, unit, "src"), (Kind::Integration, &["--test", "*"], "tests")];
        for (kind, targets, _) in suites.into_iter().filter(|(_, _, home)| has(home)) {
            if !keep(package, kind, targets)? {
                failed.push(format!("{package} ({})", kind.as_str()));
            }
        }
    }
    ensure!(failed.is_empty(), "failed: {}; the reports say what", failed.join(", "));
    Ok(())
}

/// One run and its bundle; whether all of it passed.
fn keep(package: &str, kind: Kind, targets: &[&str]) -> Result<bool> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["test", "--no-fail-fast", "--package", package]).args(targets);
    command.current_dir(crate::root()).stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = command.output().with_context(|| format!("running the tests of {package}"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let ended = ended(&said);
    if ended.is_empty() && output.status.success() {
        return Ok(true);
    }
    let mut bundle = ProofBundle::create(crate::floors::directory(package)?, kind, None)
        .with_context(|| format!("making a proof bundle for {package}"))?;
    // Property tests draw their cases from it; unset, they draw the same ones everywhere.
    bundle.fact("seed", std::env::var("PROPTEST_RNG_SEED").ok()).context("writing the seed")?;
    for Ended { test, outcome } in &ended {
        bundle.append_event(&json!({"test": test, "outcome": outcome})).context("writing an event")?;
    }
    let passed = ended.iter().filter(|ended| ended.outcome == "ok").count();
    let mut report = format!("# {package}: {}\n\n{passed} of {} tests passed.\n", kind.as_str(), ended.len());
    if !output.status.success() {
        report.push_str(&format!("\n```text\n{said}\n```\n"));
    }
    let dir = bundle.finish(&report).context("writing the report")?;
    use std::io::Write as _;
    writeln!(std::io::stdout(), "{package}: {passed} of {}: {}", ended.len(), dir.display())
        .context("saying so")?;
    Ok(output.status.success())
}

/// What libtest says of each test: `test a::b ... ok`.
fn ended(said: &str) -> Vec<Ended<'_>> {
    let of = |line| {
        let (test, outcome) = str::strip_prefix(line, "test ")?.rsplit_once(" ... ")?;
        matches!(outcome, "ok" | "FAILED" | "ignored").then_some(Ended { test, outcome })
    };
    said.lines().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// PROOF-003
    #[test]
    fn what_came_of_each_test_is_read_from_what_the_tests_say() {
        let said = "running 2 tests\ntest a::holds ... ok\ntest a::not - should panic ... FAILED\n\
                    test result: FAILED. 1 passed\nthread 'x' panicked: test of something\n";
        let of = |test, outcome| Ended { test, outcome };
        assert_eq!(ended(said), [of("a::holds", "ok"), of("a::not - should panic", "FAILED")]);
    }

    #[test]
    fn a_package_lies_where_the_workspace_says() {
        let dir = crate::floors::directory("registry").unwrap();
        assert!(dir.ends_with("libs/registry") && dir.join("Cargo.toml").is_file(), "{}", dir.display());
        assert!(crate::floors::directory("nobody").is_err());
    }
}
