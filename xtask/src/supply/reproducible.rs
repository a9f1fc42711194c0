//! `cargo xtask reproducible`: builds the release twice, in two directories, and says whether the programs
//! are the same to the byte. Takes as long as two release builds.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::{PROGRAMS, anonymous, cargo};

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
    anonymous(&mut command, target, &[])?;
    let status = command.status().context("running cargo build")?;
    ensure!(status.success(), "the build in {} failed", target.display());
    Ok(())
}
