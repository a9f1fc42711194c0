//! `cargo xtask loom`: every model that loom tries the interleavings of, in a build of its own.
//!
//! Not among the workspace's tests, because all that they need is compiled anew for them with `--cfg loom`.

use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

struct Models {
    package: &'static str,
    /// As Cargo is told which test binary they are in.
    target: &'static [&'static str],
    /// What the names of their tests begin with.
    module: &'static str,
    /// The only file that has them.
    #[cfg(test)]
    file: &'static str,
}

const MODELS: &[Models] = &[
    Models {
        package: "registry",
        target: &["--test", "loom"],
        module: "models::",
        #[cfg(test)]
        file: "libs/registry/tests/loom/models.rs",
    },
    Models {
        package: "task-log",
        target: &["--test", "loom"],
        module: "models::",
        #[cfg(test)]
        file: "libs/task-log/tests/loom/models.rs",
    },
    Models {
        package: "task-log",
        target: &["--lib"],
        module: "journal::event_queue::models::",
        #[cfg(test)]
        file: "libs/task-log/src/journal/event_queue/models.rs",
    },
];

pub(crate) fn run() -> Result<()> {
    for models in MODELS {
        let name = format!("{} {}", models.package, models.target.join(" "));
        let began = Instant::now();
        let done = stub_llama::cargo()
            .args(["test", "--release", "--locked", "--target-dir", "target/loom", "-p", models.package])
            .args(models.target)
            .args(["--", models.module])
            .env("RUSTFLAGS", "--cfg loom")
            .current_dir(crate::root())
            .stderr(Stdio::inherit())
            .output()
            .context("running cargo")?;
        let said = String::from_utf8_lossy(&done.stdout);
        say(&said)?;
        ensure!(done.status.success(), "a model of {name} failed; what it said is above");
        let passed = passed(&said);
        ensure!(passed > 0, "{name} has no model in {}; correct MODELS in xtask/src/loom.rs", models.module);
        say(&format!("{name}: {passed} models hold, {:.0} s\n", began.elapsed().as_secs_f64()))?;
    }
    Ok(())
}

/// Tests that passed, as libtest says at the end.
fn passed(said: &str) -> u32 {
    let result = said.lines().find_map(|line| line.strip_prefix("test result: ok. "));
    result.and_then(|words| words.split_once(" passed")?.0.parse().ok()).unwrap_or(0)
}

fn say(words: &str) -> Result<()> {
    use std::io::Write as _;
    writeln!(std::io::stdout(), "{words}").context("writing to stdout")
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    fn with_models(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                with_models(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && std::fs::read_to_string(&path).unwrap().contains("loom::model")
            {
                found.push(path);
            }
        }
    }

    #[test]
    fn every_model_is_run() {
        let mut found = Vec::new();
        for dir in ["libs", "bin", "contracts", "test-harness"] {
            with_models(&crate::root().join(dir), &mut found);
        }
        let mut listed: Vec<PathBuf> = MODELS.iter().map(|models| crate::root().join(models.file)).collect();
        found.sort();
        listed.sort();
        assert_eq!(found, listed);
    }

    #[test]
    fn what_libtest_says_is_counted() {
        assert_eq!(passed("running 3 tests\n\ntest result: ok. 3 passed; 0 failed\n"), 3);
        assert_eq!(passed("running 0 tests\n\ntest result: ok. 0 passed; 0 failed\n"), 0);
        assert_eq!(passed("test result: FAILED. 2 passed; 1 failed\n"), 0);
    }
}
