//! What an instrumented program has counted, made into what rustc reads: the work of LLVM's `llvm-profdata`,
//! of a release that understands what this rustc's programs write.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

const NAME: &str = "llvm-profdata";
const SOURCE: &str = "nothing.rs";
const GET_ONE: &str = "`rustup component add llvm-tools` brings the one of this rustc; a distribution's LLVM package \
                       (`llvm-19` or newer on Debian and Ubuntu, `llvm` on Arch and Fedora) has one, too; \
                       LLVM_PROFDATA names one that is elsewhere";

/// An `llvm-profdata` that was seen to work.
#[derive(Debug)]
pub(super) struct Merger(PathBuf);

impl Merger {
    /// The first that works: the one that `LLVM_PROFDATA` names, rustc's own, those on the `PATH`.
    pub(super) fn find() -> Result<Self> {
        if let Some(named) = std::env::var_os("LLVM_PROFDATA") {
            let merger = Self(named.into());
            let why = || format!("LLVM_PROFDATA names {}, which is of no use", merger.0.display());
            try_out(std::slice::from_ref(&merger.0), reads).with_context(why)?;
            return Ok(merger);
        }
        let libdir = output(Command::new(rustc()).args(["--print", "target-libdir"]))?;
        let own = Path::new(libdir.trim()).with_file_name("bin").join(NAME);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found: Vec<PathBuf> = std::iter::once(own)
            .chain(on_path(std::env::split_paths(&path)))
            .filter(|path| path.exists())
            .collect();
        ensure!(!found.is_empty(), "there is no {NAME}, and nothing was built: {GET_ONE}");
        try_out(&found, reads)
    }

    /// Makes one file of all in the directory `raw`.
    pub(super) fn merge(&self, raw: &Path, merged: &Path) -> Result<()> {
        output(Command::new(&self.0).args(["merge", "--sparse", "-o"]).arg(merged).arg(raw)).map(drop)
    }
}

pub(super) fn rustc() -> OsString {
    std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())
}

/// The first candidate that makes something of the counts of the smallest program there is that `reads` takes.
fn try_out(candidates: &[PathBuf], reads: impl Fn(&Path) -> Result<()>) -> Result<Merger> {
    let dir = tempfile::tempdir().context("making a directory")?;
    let raw = dir.path().join("raw");
    count_something(dir.path(), &raw).context("trying out whether this rustc makes programs that count")?;
    let mut failed = Vec::new();
    for candidate in candidates {
        let (merger, merged) = (Merger(candidate.clone()), dir.path().join("merged"));
        match merger.merge(&raw, &merged).and_then(|()| reads(&merged)) {
            Ok(()) => return Ok(merger),
            Err(error) => failed.push(format!("{}: {error:#}", candidate.display())),
        }
    }
    bail!("no {NAME} here understands this rustc, and nothing was built: {GET_ONE}\n{}", failed.join("\n"))
}

/// Whether this rustc can read what was made of counts. Where it cannot, it warns and builds without them.
fn reads(merged: &Path) -> Result<()> {
    let mut rustc = Command::new(rustc());
    rustc.arg("-O").arg(format!("-Cprofile-use={}", merged.display()));
    rustc.arg("-o").arg(merged.with_file_name("again")).arg(merged.with_file_name(SOURCE));
    let output = rustc.output().context("running rustc")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && said.is_empty(), "rustc does not read what it makes: {}", said.trim());
    Ok(())
}

/// `llvm-profdata`, and `llvm-profdata-N` with the newest first.
fn on_path(dirs: impl Iterator<Item = PathBuf>) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for dir in dirs {
        let names = std::fs::read_dir(&dir).into_iter().flatten().flatten().map(|entry| entry.file_name());
        for name in names {
            let version = match name.to_str().and_then(|name| name.strip_prefix(NAME)) {
                Some("") => u32::MAX,
                Some(rest) => match rest.strip_prefix('-').and_then(|version| version.parse().ok()) {
                    Some(version) => version,
                    None => continue,
                },
                None => continue,
            };
            found.push((version, dir.join(name)));
        }
    }
    found.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    found.into_iter().map(|(_, path)| path).collect()
}

/// The smallest program there is, with what it has counted in the directory `raw`.
fn count_something(dir: &Path, raw: &Path) -> Result<()> {
    let (source, program) = (dir.join(SOURCE), dir.join("nothing"));
    std::fs::write(&source, "fn main() {}\n").context("writing a program")?;
    let flag = format!("-Cprofile-generate={}", raw.display());
    output(Command::new(rustc()).arg("-O").arg(flag).arg("-o").arg(&program).arg(&source))?;
    output(Command::new(&program).env_remove("LLVM_PROFILE_FILE")).map(drop)
}

/// What a command prints; its words where it fails.
pub(super) fn output(command: &mut Command) -> Result<String> {
    let named = format!("{}", command.get_program().display());
    let output = command.output().with_context(|| format!("running {named}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{named} failed: {}", said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn script(dir: &Path, name: &str, text: &str) -> PathBuf {
        let path = dir.join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// PROOF-014
    #[test]
    fn the_first_that_makes_what_this_rustc_reads_is_taken_and_why_not_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let old = script(dir.path(), "old", "echo unsupported profile version >&2; exit 1");
        // Takes what it is given: `merge --sparse -o MERGED RAW`, with something in RAW.
        let takes = |made: &str| format!("test -n \"$(ls \"$5\")\" && echo {made} > \"$4\"");
        let new = script(dir.path(), "new", &takes("new"));
        let good = script(dir.path(), "good", &takes("good"));
        let reads = |merged: &Path| {
            let made = std::fs::read_to_string(merged)?;
            ensure!(made == "good\n", "what {} makes is too new", made.trim());
            Ok(())
        };
        let absent = dir.path().join("absent");
        let found = try_out(&[absent.clone(), old.clone(), new.clone(), good.clone()], reads).unwrap();
        assert_eq!(found.0, good);
        let refused = try_out(&[absent, old, new.clone()], reads).unwrap_err().to_string();
        for part in ["absent: ", "unsupported profile version", "new makes is too new", "llvm-tools"] {
            assert!(refused.contains(part), "{part}: {refused}");
        }
        let refused = try_out(&[new], super::reads).unwrap_err().to_string();
        assert!(refused.contains("rustc does not read what it makes: "), "{refused}");
    }

    #[test]
    fn those_on_the_path_come_plain_first_and_then_the_newest() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (dir, name) in
            [(&one, "llvm-profdata-9"), (&other, "llvm-profdata-19"), (&other, "llvm-profdata")]
        {
            script(dir.path(), name, "");
        }
        script(one.path(), "llvm-profdata-old", "");
        let dirs = [one.path(), Path::new("/nowhere"), other.path()].map(Path::to_owned);
        let names: Vec<_> = on_path(dirs.into_iter())
            .into_iter()
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["llvm-profdata", "llvm-profdata-19", "llvm-profdata-9"]);
    }
}
