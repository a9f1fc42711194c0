//! `cargo xtask mutants [CORE]`: breaks the pure cores in every way that cargo-mutants knows, one at a time,
//! and asks their tests. A change that no test notices must stand in docs/mutation-report.md with the
//! reason why none has to; one that does not fails this command.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

const REPORT: &str = "docs/mutation-report.md";

/// A core, its files, and the tests that speak for it.
struct Core {
    name: &'static str,
    package: &'static str,
    /// Paths; `*.rs` is every file of a directory but its tests.
    files: &'static [&'static str],
    /// Where the tests are. Nothing else is compiled for a change.
    targets: &'static [&'static str],
    /// Which of them, by what their names hold; none: all.
    tests: &'static [&'static str],
}

const CORES: &[Core] = &[
    Core {
        name: "registry",
        package: "registry",
        files: &[
            "libs/registry/src/fold.rs",
            "libs/registry/src/lease.rs",
            "libs/registry/src/order.rs",
            "libs/registry/src/ready.rs",
            "libs/registry/src/snapshot.rs",
        ],
        targets: &["--lib", "--test=leases"],
        tests: &[],
    },
    Core {
        name: "admission",
        package: "dispatch",
        files: &["libs/dispatch/src/queue/*.rs"],
        targets: &["--lib"],
        tests: &["queue::"],
    },
    Core {
        name: "placement",
        package: "dispatch",
        files: &[
            "libs/dispatch/src/pace.rs",
            "libs/dispatch/src/place.rs",
            "libs/dispatch/src/place/words.rs",
        ],
        targets: &["--lib"],
        tests: &["place::", "pace::"],
    },
    Core {
        name: "breaker",
        package: "pool-managerd",
        files: &["libs/pool-managerd/src/schedule.rs"],
        targets: &["--lib"],
        tests: &["schedule::"],
    },
    Core {
        name: "handoff-diff",
        package: "handoff",
        files: &["libs/handoff/src/claims.rs", "libs/handoff/src/scan.rs"],
        targets: &["--lib", "--test=directory"],
        tests: &[],
    },
    Core {
        name: "flags",
        package: "provisioners-engine-provisioner",
        files: &["libs/provisioners/engine-provisioner/src/flags.rs"],
        targets: &["--lib"],
        tests: &["flags::"],
    },
    Core {
        name: "sse",
        package: "worker-adapters-llamacpp-http",
        files: &["libs/worker-adapters/llamacpp-http/src/sse.rs"],
        targets: &["--lib"],
        tests: &[],
    },
];

/// What came of one core.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    caught: usize,
    /// The tests no longer end: noticed, too.
    timeout: usize,
    /// They do not compile.
    unviable: usize,
    missed: Vec<String>,
}

pub(crate) fn run(core: Option<&str>) -> Result<()> {
    let chosen: Vec<&Core> =
        CORES.iter().filter(|known| core.is_none_or(|core| core == known.name)).collect();
    if chosen.is_empty() {
        let known: Vec<&str> = CORES.iter().map(|core| core.name).collect();
        bail!("no core is called {:?}; there are {}", core.unwrap_or_default(), known.join(", "));
    }
    let report = std::fs::read_to_string(crate::root().join(REPORT)).unwrap_or_default();
    let mut unexplained = Vec::new();
    say("| core | mutants | caught | do not end | do not compile | survive |\n|---|--:|--:|--:|--:|--:|")?;
    for core in chosen {
        let outcome = mutate(core)?;
        say(&row(core.name, &outcome))?;
        unexplained.extend(outcome.missed.into_iter().filter(|mutant| !explained(&report, mutant)));
    }
    ensure!(
        unexplained.is_empty(),
        "no test notices these, and {REPORT} does not say why none has to:\n  {}",
        unexplained.join("\n  ")
    );
    Ok(())
}

fn mutate(core: &Core) -> Result<Outcome> {
    let files = files(core)?;
    let out = crate::root().join("target/mutants").join(core.name);
    std::fs::create_dir_all(&out).with_context(|| format!("making {}", out.display()))?;
    // The copy that is broken, and what tests that fail leave behind; gone with this value.
    let scratch =
        tempfile::tempdir_in(&out).with_context(|| format!("making a directory in {}", out.display()))?;
    let mut command = stub_llama::cargo();
    command.args(["mutants", "--package", core.package, "--jobs", "1", "--no-shuffle", "--colors", "never"]);
    // A machine that is busy is no mutant that was noticed.
    command.args(["--minimum-test-timeout", "60", "--output"]).arg(&out);
    command.args(files.iter().flat_map(|file| ["--file", file]));
    // Behind `--` they would be told to the tests' run only, and each change compile and link every test
    // of the package.
    command.args(core.targets.iter().map(|target| format!("--cargo-arg={target}")));
    command.args(["--", "--"]).args(core.tests).env("TMPDIR", scratch.path()).current_dir(crate::root());
    // What the cores stand on is built once for all of them: in a directory of each copy's own that took a
    // quarter of an hour, and a change takes seconds. Not where the workspace is built: they would wait for
    // each other.
    if std::env::var_os("CARGO_TARGET_DIR").is_none() {
        command.env("CARGO_TARGET_DIR", crate::root().join("target/mutants/build"));
    }
    // Nobody reads a backtrace of theirs; without its tables a test is linked sooner.
    command.env("CARGO_PROFILE_DEV_DEBUG", "0").env("RUST_BACKTRACE", "0");
    let status =
        command.status().context("running cargo mutants; `cargo install cargo-mutants` brings it")?;
    // 2: some survive, 3: some do not end. What they are is in the files.
    ensure!(
        matches!(status.code(), Some(0 | 2 | 3)),
        "cargo mutants failed for {} ({status}); see {}",
        core.name,
        out.display()
    );
    let dir = out.join("mutants.out");
    Ok(Outcome {
        caught: lines(&dir, "caught")?.len(),
        timeout: lines(&dir, "timeout")?.len(),
        unviable: lines(&dir, "unviable")?.len(),
        missed: lines(&dir, "missed")?.iter().map(|line| without_place(line)).collect(),
    })
}

/// The files of a core. One that is not there, renamed or split, would be one that nobody tries.
fn files(core: &Core) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for pattern in core.files {
        let Some(dir) = pattern.strip_suffix("/*.rs") else {
            let there = crate::root().join(pattern).is_file();
            ensure!(
                there,
                "{pattern} of the core {} is not there; name what it is now in {}",
                core.name,
                file!()
            );
            found.push((*pattern).to_owned());
            continue;
        };
        let path = crate::root().join(dir);
        let all = crate::trace::files(&path, "rs")?;
        let names = all.iter().filter_map(|file| file.strip_prefix(crate::root()).ok()?.to_str());
        let before = found.len();
        found.extend(names.filter(|name| !name.ends_with("/tests.rs")).map(str::to_owned));
        ensure!(found.len() > before, "{pattern} of the core {} names no file", core.name);
    }
    Ok(found)
}

fn lines(dir: &Path, name: &str) -> Result<Vec<String>> {
    let path: PathBuf = dir.join(format!("{name}.txt"));
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// `libs/a.rs:12:5: replace x with y` without the line and column, which move with every edit.
fn without_place(mutant: &str) -> String {
    let Some((place, change)) = mutant.split_once(": ") else { return mutant.to_owned() };
    format!("{}: {change}", place.split(':').next().unwrap_or(place))
}

fn explained(report: &str, mutant: &str) -> bool {
    survivors(report).iter().any(|(known, _)| known == mutant)
}

/// The survivors that a report names, and why each may live: "- `mutant`: reason".
fn survivors(report: &str) -> Vec<(String, String)> {
    let of = |line: &str| {
        let (mutant, reason) = line.strip_prefix("- `")?.split_once("`: ")?;
        Some((mutant.to_owned(), reason.trim().to_owned()))
    };
    report.lines().filter_map(of).collect()
}

fn row(name: &str, outcome: &Outcome) -> String {
    let Outcome { caught, timeout, unviable, missed } = outcome;
    let all = caught + timeout + unviable + missed.len();
    format!("| {name} | {all} | {caught} | {timeout} | {unviable} | {} |", missed.len())
}

fn say(words: &str) -> Result<()> {
    use std::io::Write as _;
    writeln!(std::io::stdout(), "{words}").context("writing to stdout")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_survivor_is_known_by_what_was_changed_and_not_by_where_it_stood() {
        let found = without_place("libs/a.rs:12:5: replace > with >= in a::b");
        assert_eq!(found, "libs/a.rs: replace > with >= in a::b");
        let report = "# Report\n- `libs/a.rs: replace > with >= in a::b`: both give the same.\n";
        assert!(explained(report, &found));
        assert!(!explained(report, "libs/a.rs: replace > with == in a::b"));
        assert!(!explained("- `libs/a.rs: replace > with >= in a::b`\n", &found), "a reason is part of it");
    }

    /// PROOF-008
    #[test]
    fn the_kept_report_has_its_date_its_command_every_core_and_a_reason_for_each_survivor() {
        let report = std::fs::read_to_string(crate::root().join(REPORT)).unwrap();
        assert!(report.contains("cargo xtask mutants") && report.contains("\nDate: 20"), "{report}");
        let mut survive = 0;
        for core in CORES {
            let row = report.lines().find(|line| line.starts_with(&format!("| {} |", core.name)));
            let row = row.unwrap_or_else(|| panic!("{} is not in the report", core.name));
            // Not tried yet is not the same as tried without a survivor.
            if row.ends_with("| not run |") {
                continue;
            }
            let numbers: Vec<usize> = row.split('|').filter_map(|cell| cell.trim().parse().ok()).collect();
            assert_eq!(numbers.len(), 5, "{row}");
            assert_eq!(numbers[0], numbers[1..].iter().sum::<usize>(), "{row}");
            survive += numbers[4];
        }
        let named = survivors(&report);
        assert!(named.len() <= survive && (named.is_empty() == (survive == 0)), "{survive}: {named:#?}");
        assert!(named.iter().all(|(_, reason)| reason.split_whitespace().count() >= 4), "{named:#?}");
    }

    /// PROOF-008
    #[test]
    fn every_core_is_of_a_package_and_of_files_that_there_are() {
        let members = crate::floors::members().unwrap();
        for core in CORES {
            assert!(members.iter().any(|member| member == core.package), "{}", core.package);
            assert!(!files(core).unwrap().is_empty(), "{}", core.name);
        }
        let queue = files(&CORES[1]).unwrap();
        assert!(queue.iter().any(|file| file.ends_with("queue/fair.rs")), "{queue:?}");
        assert!(!queue.iter().any(|file| file.ends_with("tests.rs")), "{queue:?}");
        let core = |files| Core { name: "x", package: "registry", files, targets: &[], tests: &[] };
        let renamed = files(&core(&["libs/registry/src/once.rs"])).unwrap_err().to_string();
        assert!(renamed.contains("libs/registry/src/once.rs of the core x is not there"), "{renamed}");
        assert!(files(&core(&["libs/registry/fuzz/*.rs"])).is_err());
    }
}
