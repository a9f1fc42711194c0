//! `cargo xtask reproducible`: builds the release twice, in two directories, and says whether the programs
//! are the same to the byte. Takes as long as two release builds.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::{PROGRAMS, cargo, cargo_home};

pub(crate) fn run() -> Result<()> {
    let base =
        std::path::absolute(crate::root().join("target/reproducible")).context("naming a directory")?;
    let builds = [base.join("one"), base.join("the-other-one")];
    for dir in &builds {
        build(dir)?;
    }
    let mut lines = Vec::new();
    let mut different = Vec::new();
    for (_, program) in PROGRAMS {
        let bytes = |dir: &PathBuf| {
            let path = dir.join("release").join(program);
            std::fs::read(&path).with_context(|| format!("reading {}", path.display()))
        };
        let (one, other) = (bytes(&builds[0])?, bytes(&builds[1])?);
        let verdict = if one == other { "the same" } else { "NOT the same" };
        lines.push(format!("{program}: {} bytes, {verdict}", one.len()));
        if one != other {
            different.push(program);
        }
    }
    use std::io::Write as _;
    writeln!(std::io::stdout(), "{}", lines.join("\n")).context("writing to stdout")?;
    ensure!(
        different.is_empty(),
        "{} came out differently; `diffoscope` on the two below {} shows where",
        different.join(", "),
        base.display()
    );
    Ok(())
}

fn build(target: &Path) -> Result<()> {
    if target.exists() {
        std::fs::remove_dir_all(target).with_context(|| format!("emptying {}", target.display()))?;
    }
    let mut command = cargo();
    command.args(["build", "--release", "--locked", "--bins", "--target-dir"]).arg(target);
    command.args(PROGRAMS.iter().flat_map(|(package, _)| ["-p", package]));
    command.env("CARGO_ENCODED_RUSTFLAGS", flags(target)?.join("\u{1f}"));
    // Debug information and archives must not carry the time.
    command.env("SOURCE_DATE_EPOCH", "0").env("ZERO_AR_DATE", "1");
    let status = command.status().context("running cargo build")?;
    ensure!(status.success(), "the build in {} failed", target.display());
    Ok(())
}

/// Names of this machine's directories are replaced, so that they do not end up in the programs.
fn flags(target: &Path) -> Result<Vec<String>> {
    let root = std::fs::canonicalize(crate::root()).context("finding the repository")?;
    let home = cargo_home().context("finding cargo's directory; set CARGO_HOME")?;
    // The last one that fits counts, so the longer path comes later.
    Ok([(&home, "/cargo"), (&root, "/llama-orch"), (&target.to_owned(), "/target")]
        .map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()))
        .into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_directory_of_this_machine_is_left_and_the_nearest_name_wins() {
        let target = std::fs::canonicalize(crate::root()).unwrap().join("target/reproducible/one");
        let flags = flags(&target).unwrap();
        assert!(flags[2].ends_with("target/reproducible/one=/target"), "{flags:?}");
        assert!(flags[1].ends_with("=/llama-orch") && flags[0].ends_with("=/cargo"), "{flags:?}");
    }
}
