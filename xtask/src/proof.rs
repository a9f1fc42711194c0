//! `cargo xtask proof PACKAGE...`: runs a package's unit and integration tests and keeps what came of each
//! in proof bundles. The other suites keep theirs by themselves.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Instant;

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
    let mut command = stub_llama::cargo();
    command.args(["test", "--no-fail-fast", "--package", package]).args(targets);
    command.current_dir(crate::root()).stdin(Stdio::null()).stderr(Stdio::inherit());
    let asked = format!("cargo test --no-fail-fast --package {package} {}", targets.join(" "));
    let began = Instant::now();
    let output = command.output().with_context(|| format!("running the tests of {package}"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let ended = ended(&said);
    if ended.is_empty() && output.status.success() {
        say(&format!("{package}: {}: it has none, or a suite that keeps its own bundle", kind.as_str()))?;
        return Ok(true);
    }
    let mut bundle = ProofBundle::create(crate::floors::directory(package)?, kind, None)
        .with_context(|| format!("making a proof bundle for {package}"))?;
    // Property tests draw their cases from it; unset, they draw the same ones everywhere.
    bundle.fact("seed", std::env::var("PROPTEST_RNG_SEED").ok()).context("writing the seed")?;
    for Ended { test, outcome } in &ended {
        bundle.append_event(&json!({"test": test, "outcome": outcome})).context("writing an event")?;
    }
    bundle.fact("command", &asked).context("writing the command")?;
    let passed = ended.iter().filter(|ended| ended.outcome == "ok").count();
    let took = began.elapsed().as_secs();
    let mut report = report(package, kind, &ended);
    report.push_str(&format!("\n`{asked}`, {took} s with what had to be compiled.\n"));
    if !output.status.success() {
        report.push_str(&format!("\n```text\n{said}\n```\n"));
    }
    let dir = bundle.finish(&report).context("writing the report")?;
    say(&format!("{package}: {}: {passed} of {} passed: {}", kind.as_str(), ended.len(), dir.display()))?;
    Ok(output.status.success())
}

fn say(words: &str) -> Result<()> {
    use std::io::Write as _;
    writeln!(std::io::stdout(), "{words}").context("writing to stdout")
}

/// How many passed, which did not, and what was tested: the tests' names are sentences.
fn report(package: &str, kind: Kind, ended: &[Ended<'_>]) -> String {
    let count = |outcome: &str| ended.iter().filter(|ended| ended.outcome == outcome).count();
    let mut report =
        format!("# {package}: {}\n\n{} of {} tests passed", kind.as_str(), count("ok"), ended.len());
    report.push_str(&match count("ignored") {
        0 => ".\n".to_owned(),
        ignored => format!(", {ignored} were ignored.\n"),
    });
    let mut sections: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for Ended { test, outcome } in ended {
        let (module, name) = test.rsplit_once("::").unwrap_or(("", test));
        let outcome = if *outcome == "ok" { String::new() } else { format!(" (**{outcome}**)") };
        sections.entry(module).or_default().push(format!("- {}{outcome}\n", name.replace('_', " ")));
    }
    for (module, tests) in sections {
        let heading = if module.is_empty() { String::new() } else { format!("## {module}\n\n") };
        report.push_str(&format!("\n{heading}{}", tests.concat()));
    }
    report
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

    /// PROOF-003
    #[test]
    fn a_report_says_what_was_tested_and_what_did_not_hold() {
        let of = |test, outcome| Ended { test, outcome };
        let ended =
            [of("at_the_top", "ok"), of("a::tests::it_holds", "ok"), of("a::tests::it_bends", "FAILED")];
        let expected = "# p: unit\n\n2 of 3 tests passed.\n\n- at the top\n\n## a::tests\n\n\
                        - it holds\n- it bends (**FAILED**)\n";
        assert_eq!(report("p", Kind::Unit, &ended), expected);
        let ignored = report("p", Kind::Unit, &[of("x", "ignored")]);
        assert!(ignored.contains("0 of 1 tests passed, 1 were ignored."), "{ignored}");
    }

    #[test]
    fn a_package_lies_where_the_workspace_says() {
        let dir = crate::floors::directory("registry").unwrap();
        assert!(dir.ends_with("libs/registry") && dir.join("Cargo.toml").is_file(), "{}", dir.display());
        assert!(crate::floors::directory("nobody").is_err());
    }
}
