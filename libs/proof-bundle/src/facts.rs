//! What is known about a run before it starts: where it ran and on what.

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::Kind;

/// The facts of `metadata.json`. What is not known is null, never guessed.
pub(crate) fn metadata(crate_dir: &Path, kind: Kind, run_id: &str) -> Value {
    let started = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    json!({
        "schema_version": 1,
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
    let git = crate_dir.ancestors().map(|dir| dir.join(".git")).find(|git| git.is_dir())?;
    let head = fs::read_to_string(git.join("HEAD")).ok()?;
    let Some(name) = head.trim().strip_prefix("ref: ") else { return Some(head.trim().to_owned()) };
    if let Ok(commit) = fs::read_to_string(git.join(name)) {
        return Some(commit.trim().to_owned());
    }
    let packed = fs::read_to_string(git.join("packed-refs")).ok()?;
    let line = packed.lines().find(|line| line.split_whitespace().nth(1) == Some(name))?;
    line.split_whitespace().next().map(str::to_owned)
}

fn line(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'));
    value.map(|value| value.trim().to_owned())
}
