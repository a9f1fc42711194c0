//! Whether the kernel's memory killer was at work: a counter that the kernel keeps for each control
//! group, or for the machine where there is no group. A SIGKILL while it moved is the killer's; one
//! while it stood still is somebody else's.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::observed::number_after;

/// The counter for one process's control group, and how it stood when it was last looked at.
#[derive(Debug)]
pub struct MemoryKills {
    file: PathBuf,
    seen: AtomicU64,
}

impl MemoryKills {
    /// The counter that covers a process; `None` where the kernel keeps none.
    #[must_use]
    pub fn covering(pid: u32) -> Option<Self> {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        Self::first(group_files(&groups, Path::new("/sys/fs/cgroup")).chain(["/proc/vmstat".into()]))
    }

    fn first(files: impl Iterator<Item = PathBuf>) -> Option<Self> {
        files.into_iter().find_map(|file| {
            let seen = AtomicU64::new(count(&file)?);
            Some(Self { file, seen })
        })
    }

    /// Whether it has killed since the last look, which this is.
    pub fn moved(&self) -> bool {
        let Some(now) = count(&self.file) else { return false };
        self.seen.swap(now, Ordering::Relaxed) < now
    }
}

/// Where a process's groups count, from its `/proc/<pid>/cgroup`: version 2, then version 1.
fn group_files(groups: &str, root: &Path) -> impl Iterator<Item = PathBuf> {
    let file = |hierarchy: &str, mount: &str, name: &str| {
        let path = groups.lines().find_map(|line| Some(line.split_once(hierarchy)?.1))?;
        // A namespace may show a path that is not below what is mounted here.
        (!path.contains("..")).then(|| root.join(mount).join(path.trim_start_matches('/')).join(name))
    };
    let unified = file("0::", "", "memory.events");
    let legacy = file(":memory:", "memory", "memory.oom_control");
    unified.into_iter().chain(legacy)
}

fn count(file: &Path) -> Option<u64> {
    number_after(&fs::read_to_string(file).ok()?, "oom_kill")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_both_versions_are_found_below_the_mount() {
        let files = |groups: &str| group_files(groups, Path::new("/c")).collect::<Vec<_>>();
        assert_eq!(
            files("0::/system.slice/p.service\n"),
            [Path::new("/c/system.slice/p.service/memory.events")]
        );
        assert_eq!(files("4:memory:/a\n1:cpu:/b\n"), [Path::new("/c/memory/a/memory.oom_control")]);
        assert_eq!(files("0::/../x\n"), Vec::<PathBuf>::new());
    }

    #[test]
    fn a_kill_is_seen_once_and_a_file_that_goes_away_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("memory.events");
        fs::write(&file, "low 0\noom 3\noom_kill 2\noom_group_kill 0\n").unwrap();
        let kills = MemoryKills::first([dir.path().join("none"), file.clone()].into_iter()).unwrap();
        assert!(!kills.moved());
        fs::write(&file, "oom_kill 3\n").unwrap();
        assert!(kills.moved());
        assert!(!kills.moved());
        fs::remove_file(&file).unwrap();
        assert!(!kills.moved());
    }
}
