//! `cargo xtask soak-tests SUITE`: one suite again and again until it fails, or for an hour. A test that
//! fails once in a hundred runs is found here and not by whoever runs the tests next.

use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};

/// Suites and how each is run: the kinds of run that have proof bundles.
const SUITES: &[(&str, &[&str])] = &[
    ("unit", &["test", "--workspace", "--lib", "--bins"]),
    (
        "integration",
        &[
            "test",
            "--workspace",
            "--test",
            "*",
            "--exclude",
            "test-harness-bdd",
            "--exclude",
            "test-harness-chaos",
            "--exclude",
            "determinism-suite",
            "--exclude",
            "test-harness-e2e-haiku",
        ],
    ),
    ("bdd", &["test", "-p", "test-harness-bdd"]),
    ("chaos", &["test", "-p", "test-harness-chaos"]),
    ("determinism", &["test", "-p", "determinism-suite"]),
    ("e2e", &["test", "-p", "test-harness-e2e-haiku"]),
];

pub(crate) fn run(suite: &str, limit: Duration) -> Result<()> {
    let Some((_, arguments)) = SUITES.iter().find(|(name, _)| *name == suite) else {
        let known: Vec<&str> = SUITES.iter().map(|(name, _)| *name).collect();
        bail!("no suite is called {suite:?}; there are {}", known.join(", "));
    };
    let log = crate::root().join(format!("target/soak-{suite}.log"));
    let began = Instant::now();
    let mut rounds = 0_u32;
    while began.elapsed() < limit {
        rounds += 1;
        let round = Instant::now();
        let seed = fresh_seed()?;
        let passed = once(arguments, seed, &log)?;
        say(&format!(
            "{suite}: round {rounds}, PROPTEST_RNG_SEED={seed}, {} in {:.1} s, {:.0} s of {:.0} s",
            if passed { "passed" } else { "FAILED" },
            round.elapsed().as_secs_f64(),
            began.elapsed().as_secs_f64(),
            limit.as_secs_f64()
        ))?;
        ensure!(passed, "{suite} failed in round {rounds}; what it said is in {}", log.display());
    }
    say(&format!("{suite}: {rounds} rounds, all passed"))
}

/// One round; what it says replaces what the round before said.
fn once(arguments: &[&str], seed: u64, log: &std::path::Path) -> Result<bool> {
    let file = std::fs::File::create(log).with_context(|| format!("making {}", log.display()))?;
    let both = file.try_clone().context("sharing the log")?;
    let mut command = stub_llama::cargo();
    command.args(arguments).current_dir(crate::root()).stdin(Stdio::null()).stdout(both).stderr(file);
    command.env("PROPTEST_RNG_SEED", seed.to_string());
    Ok(command.status().context("running cargo test")?.success())
}

/// The nanoseconds of this moment: the property tests of each round draw cases of their own.
fn fresh_seed() -> Result<u64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
    Ok(u64::from(now.subsec_nanos()) ^ now.as_secs().rotate_left(32))
}

fn say(words: &str) -> Result<()> {
    use std::io::Write as _;
    writeln!(std::io::stdout(), "{words}").context("writing to stdout")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_suite_is_told_with_the_known_ones() {
        let error = run("bbd", Duration::ZERO).unwrap_err().to_string();
        assert!(error.contains("\"bbd\"") && error.contains("determinism, e2e"), "{error}");
    }

    #[test]
    fn every_suite_is_of_packages_that_there_are_and_what_integration_leaves_out_is_a_suite() {
        let members = crate::floors::members().unwrap();
        let named = |flag: &'static str| {
            let pairs = SUITES.iter().flat_map(|(_, arguments)| arguments.windows(2));
            pairs.filter(move |pair| pair[0] == flag).map(|pair| pair[1]).collect::<Vec<_>>()
        };
        assert_eq!(named("-p"), named("--exclude"));
        for package in named("-p") {
            assert!(members.contains(&package.to_owned()), "{package}");
        }
    }
}
