//! What is known about a run before it starts: where it ran and on what.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::Kind;

/// Raised when a reader of an earlier one could not use a bundle. Each version that was released has one
/// in `tests/fixtures/released`.
pub const SCHEMA_VERSION: u32 = 1;

/// The facts of `metadata.json`. What is not known is null, never guessed.
pub(crate) fn metadata(crate_dir: &Path, kind: Kind, run_id: &str) -> Value {
    let started = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    json!({
        "schema_version": SCHEMA_VERSION,
        "crate": crate_dir.file_name().map(|name| name.to_string_lossy()),
        "kind": kind.as_str(),
        "run_id": run_id,
        "started_unix_ms": u64::try_from(started).unwrap_or(u64::MAX),
        "seed": null,
        "version": env!("CARGO_PKG_VERSION"),
        "git_commit": commit(crate_dir),
        "host": {
            "os": std::env::consts::OS,
            "arch": std::env::consts::ARCH,
            "kernel": line("/proc/sys/kernel/osrelease"),
            "cpu": field("/proc/cpuinfo", "model name"),
            "cores": std::thread::available_parallelism().map(usize::from).ok(),
            "memory": field("/proc/meminfo", "MemTotal"),
        },
    })
}

/// The checked-out commit, read from the repository's files: no process is started for it.
fn commit(crate_dir: &Path) -> Option<String> {
    let git = crate_dir.ancestors().find_map(repository)?;
    let head = fs::read_to_string(git.join("HEAD")).ok()?;
    let Some(name) = head.trim().strip_prefix("ref: ") else { return Some(head.trim().to_owned()) };
    // A worktree has a HEAD of its own and shares the branches with its repository.
    let shared = line(git.join("commondir")).map_or(git.clone(), |common| git.join(common));
    if let Some(commit) = line(shared.join(name)) {
        return Some(commit);
    }
    let packed = fs::read_to_string(shared.join("packed-refs")).ok()?;
    let line = packed.lines().find(|line| line.split_whitespace().nth(1) == Some(name))?;
    line.split_whitespace().next().map(str::to_owned)
}

/// The git directory of what is checked out here, if anything is: `.git`, or what a file of that name says.
fn repository(dir: &Path) -> Option<PathBuf> {
    let git = dir.join(".git");
    if git.is_dir() {
        return Some(git);
    }
    Some(dir.join(line(git)?.strip_prefix("gitdir: ")?))
}

/// A file of one line, without its end.
fn line(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'));
    value.map(|value| value.trim().to_owned())
}
