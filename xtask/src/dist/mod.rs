//! `cargo xtask dist`: the programs as they are shipped, in `target/dist`, with their units, licences and lists
//! of what is linked into them.
//!
//! orchestratord is built twice: once so that it counts which way its code goes, which it then does under the
//! load of [`crate::bench::training`], and once with those counts, so that what a token passes lies together
//! and is inlined (profile-guided optimisation). They are kept with the programs, for `--profile`.

mod counts;

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use self::counts::Merger;
use crate::bench::training;
use crate::supply::{PROGRAMS, anonymous, cargo, sbom};

/// The one that is on a token's way.
const TRAINED: &str = "orchestratord";
const PROFILE: &str = "orchestratord.profdata";

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Build with these counts, of an earlier run, instead of counting anew
    #[arg(long)]
    profile: Option<PathBuf>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let work = made("dist-build")?;
    let profile = match &options.profile {
        Some(path) => std::fs::canonicalize(path).with_context(|| format!("finding {}", path.display()))?,
        None => train(&work)?,
    };
    let host = host()?;
    say("building orchestratord with what was counted")?;
    let trained = work.join("trained");
    // Cargo does not look whether the counts of a registry's crate are others than the last time.
    empty(&trained)?;
    build(&trained, &host, &[TRAINED], &[format!("-Cprofile-use={}", profile.display())])?;
    say("building the other programs")?;
    let plain = work.join("plain");
    let others: Vec<&str> = PROGRAMS.iter().map(|(package, _)| *package).filter(|p| *p != TRAINED).collect();
    build(&plain, &host, &others, &[])?;
    let programs = PROGRAMS.map(|(_, program)| {
        let target = if program == TRAINED { &trained } else { &plain };
        target.join(&host).join("release").join(program)
    });
    // Whole before it takes the place of the last one, in which the counts may lie.
    let whole = work.join("whole");
    put_together(&whole, &programs, &profile)?;
    let out = made("dist")?;
    empty(&out)?;
    std::fs::rename(&whole, &out).with_context(|| format!("moving it to {}", out.display()))?;
    let sums = std::fs::read_to_string(out.join("SHA256SUMS")).context("reading the sums")?;
    writeln!(std::io::stdout(), "{}:\n{}", out.display(), sums.trim_end()).context("writing to stdout")
}

/// Builds an orchestratord that counts, puts the load on it, and says where the counts are.
fn train(work: &Path) -> Result<PathBuf> {
    // Before anything that takes minutes.
    let merger = Merger::find()?;
    training::prepare()?;
    let (target, raw) = (work.join("counting"), work.join("counts"));
    empty(&raw)?;
    let host = host()?;
    say("building an orchestratord that counts which way its code goes")?;
    build(&target, &host, &[TRAINED], &[format!("-Cprofile-generate={}", raw.display())])?;
    training::run(target.join(&host).join("release").join(TRAINED), &mut |step| {
        say(&format!("counting: {step}"))
    })?;
    let profile = work.join(PROFILE);
    merger.merge(&raw, &profile)?;
    Ok(profile)
}

fn build(target: &Path, host: &str, packages: &[&str], flags: &[String]) -> Result<()> {
    let mut command = cargo();
    // With a target named, build scripts and macros are built without the flags.
    command.args(["build", "--release", "--locked", "--bins", "--target", host, "--target-dir"]).arg(target);
    command.args(packages.iter().flat_map(|package| ["-p", package]));
    anonymous(&mut command, target, flags)?;
    let status = command.status().context("running cargo build")?;
    ensure!(status.success(), "the build in {} failed; cargo's words are above", target.display());
    Ok(())
}

/// The platform that rustc builds for when nobody says which.
fn host() -> Result<String> {
    let said = counts::output(Command::new(counts::rustc()).args(["--print", "host-tuple"]))?;
    Ok(said.trim().to_owned())
}

fn put_together(out: &Path, programs: &[PathBuf], profile: &Path) -> Result<()> {
    empty(out)?;
    let root = crate::root();
    let beside = ["dist/orchestratord.service", "dist/pool-managerd.service"];
    let licences = ["docs/LICENSE-APACHE", "docs/LICENSE-MIT"];
    let files = beside.iter().chain(&licences).map(|file| root.join(file));
    let copy = |from: &Path, name: &OsStr| {
        std::fs::copy(from, out.join(name)).with_context(|| format!("copying {}", from.display()))
    };
    for file in programs.iter().cloned().chain(files) {
        copy(&file, file.file_name().context("naming a file")?)?;
    }
    copy(profile, PROFILE.as_ref())?;
    sbom::write_to(out)?;
    let mut names = Vec::new();
    for entry in std::fs::read_dir(out).with_context(|| format!("listing {}", out.display()))? {
        names.push(entry.context("listing what was made")?.file_name());
    }
    names.sort();
    let sums = counts::output(Command::new("sha256sum").args(names).current_dir(out))?;
    std::fs::write(out.join("SHA256SUMS"), sums).context("writing the sums")
}

/// A directory below cargo's, there and by its whole name: what is called with it runs elsewhere.
fn made(name: &str) -> Result<PathBuf> {
    let dir = crate::target().join(name);
    std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    std::fs::canonicalize(&dir).with_context(|| format!("finding {}", dir.display()))
}

fn empty(dir: &Path) -> Result<()> {
    if dir.exists() {
        std::fs::remove_dir_all(dir).with_context(|| format!("emptying {}", dir.display()))?;
    }
    std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))
}

fn say(what: &str) -> Result<()> {
    writeln!(std::io::stderr(), "dist: {what}").context("writing to stderr")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// PROOF-014
    #[test]
    fn what_is_shipped_is_whole_and_has_its_sums_and_nothing_of_the_last_time() {
        let dir = tempfile::tempdir().unwrap();
        let (out, program) = (dir.path().join("dist"), dir.path().join("orchestratord"));
        std::fs::write(&program, "program").unwrap();
        let first = dir.path().join("counts");
        std::fs::write(&first, "counts").unwrap();
        put_together(&out, std::slice::from_ref(&program), &first).unwrap();
        let sums = std::fs::read_to_string(out.join("SHA256SUMS")).unwrap();
        std::fs::write(out.join("stale"), "").unwrap();
        put_together(&out, &[program], &first).unwrap();
        assert_eq!(sums, std::fs::read_to_string(out.join("SHA256SUMS")).unwrap());
        let named: Vec<&str> = sums.lines().map(|line| line.split_once("  ").unwrap().1).collect();
        assert_eq!(
            named,
            [
                "LICENSE-APACHE",
                "LICENSE-MIT",
                "engine-provisioner.cdx.json",
                "orchestratord",
                "orchestratord.cdx.json",
                PROFILE,
                "orchestratord.service",
                "pool-managerd.cdx.json",
                "pool-managerd.service",
            ]
        );
        let mut check = Command::new("sha256sum");
        check.args(["--check", "--quiet", "SHA256SUMS"]).current_dir(&out);
        assert!(check.status().unwrap().success());
    }
}
