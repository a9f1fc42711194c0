//! Which commit a tree of sources is of. Used by the build script, and by the crate's tests.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The commit that was checked out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Commit {
    pub(crate) id: String,
    /// The sources were not, or not only, what is in it.
    pub(crate) modified: bool,
}

/// What the program is made of, below the repository's root: every crate that may be linked into it.
pub(crate) fn sources(root: &Path) -> Vec<PathBuf> {
    let below = |dir: &Path| {
        let entries = std::fs::read_dir(root.join(dir)).into_iter().flatten().flatten();
        entries.map(|entry| dir.join(entry.file_name())).collect::<Vec<_>>()
    };
    let libs = below(Path::new("libs"));
    let mut crates: Vec<PathBuf> = libs.iter().flat_map(|dir| below(dir)).chain(libs.clone()).collect();
    crates.extend(["bin/orchestratord", "contracts/wire"].map(PathBuf::from));
    let parts = |of: &PathBuf| ["Cargo.toml", "build", "models", "src"].map(|part| of.join(part));
    let crates = crates.iter().filter(|dir| root.join(dir).join("Cargo.toml").is_file()).flat_map(parts);
    let whole = ["Cargo.toml", "Cargo.lock", "contracts/openapi"].map(PathBuf::from);
    // Something that is named and missing would be built again every time.
    let mut there: Vec<_> = crates.chain(whole).filter(|path| root.join(path).exists()).collect();
    there.sort();
    there
}

/// `None` without git, and where `root` is not itself a checkout: a tarball that was unpacked inside
/// another repository is not of that repository's commit.
pub(crate) fn of(root: &Path, sources: &[PathBuf]) -> Option<Commit> {
    if !root.join(".git").exists() {
        return None;
    }
    let git = |args: &[&str]| {
        let mut git = Command::new("git");
        git.arg("--no-optional-locks").arg("-C").arg(root).args(args);
        // A hook that builds has these set, to whichever repository it is a hook of.
        for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
            git.env_remove(name);
        }
        git
    };
    let said = |git: &mut Command| {
        let output = git.output().ok().filter(|output| output.status.success())?;
        String::from_utf8(output.stdout).ok()
    };
    let id = said(&mut git(&["rev-parse", "--verify", "HEAD"]))?.trim().to_owned();
    let changed = said(git(&["status", "--porcelain", "--"]).args(sources))?;
    Some(Commit { id, modified: !changed.is_empty() })
}
