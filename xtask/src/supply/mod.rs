//! What is linked into the daemons, and from where: the rules (`deny`), the list (`sbom`), and whether the
//! same sources give the same bytes (`reproducible`).

pub(crate) mod deny;
pub(crate) mod reproducible;
pub(crate) mod sbom;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// The programs that a user runs: package and binary.
pub(crate) const PROGRAMS: [(&str, &str); 3] = [
    ("orchestratord", "orchestratord"),
    ("pool-managerd", "pool-managerd"),
    ("provisioners-engine-provisioner", "engine-provisioner"),
];

pub(crate) fn cargo() -> Command {
    let mut command = stub_llama::cargo();
    command.current_dir(crate::root());
    command
}

/// Where cargo keeps what it has downloaded.
fn cargo_home() -> Option<PathBuf> {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"));
    std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(home)
}

/// Tells a build in `target` to carry no name of this machine's directories, and no time. What `RUSTFLAGS`
/// asks for holds beside that.
pub(crate) fn anonymous(build: &mut Command, target: &Path, more_flags: &[String]) -> Result<()> {
    let asked = std::env::var("RUSTFLAGS").unwrap_or_default();
    let asked: Vec<String> = asked.split_whitespace().map(str::to_owned).collect();
    let flags = [&asked, more_flags, &remapped(target)?].concat();
    build.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    // Debug information and archives must not carry the time.
    build.env("SOURCE_DATE_EPOCH", "0").env("ZERO_AR_DATE", "1");
    Ok(())
}

/// Names of this machine's directories are replaced, so that they do not end up in the programs.
fn remapped(target: &Path) -> Result<Vec<String>> {
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
        let flags = remapped(&target).unwrap();
        assert!(flags[2].ends_with("target/reproducible/one=/target"), "{flags:?}");
        assert!(flags[1].ends_with("=/llama-orch") && flags[0].ends_with("=/cargo"), "{flags:?}");
    }
}
