//! Which files of a directory running processes need: as their program, mapped into memory, or named
//! on their command line. Asked before anything is removed.
//!
//! It sees what this user may see: a process of another user that shares the cache is not among them.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// A snapshot of the files in use.
#[derive(Debug, Clone, Default)]
pub struct InUse {
    files: BTreeSet<PathBuf>,
}

impl InUse {
    /// Looks at all processes for files below `root`.
    #[must_use]
    pub fn below(root: &Path) -> Self {
        let root = root.canonicalize().unwrap_or_else(|_| root.to_path_buf());
        let mut files = BTreeSet::new();
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let is_process = entry.file_name().as_bytes().iter().all(u8::is_ascii_digit);
            if is_process {
                files.extend(named_by(&entry.path()).into_iter().filter(|path| path.starts_with(&root)));
            }
        }
        Self { files }
    }

    /// Whether `path`, or something below it, is in use.
    #[must_use]
    pub fn has(&self, path: &Path) -> bool {
        let path = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        self.files.range(path.clone()..).next().is_some_and(|file| file.starts_with(&path))
    }
}

/// Every file that a process runs, maps or names. A process that is gone or not ours names none.
fn named_by(process: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    out.extend(std::fs::read_link(process.join("exe")));
    let maps = std::fs::read(process.join("maps")).unwrap_or_default();
    // address perms offset device inode path
    out.extend(maps.split(|b| *b == b'\n').filter_map(|line| {
        let at = line.iter().position(|b| *b == b'/')?;
        Some(PathBuf::from(std::ffi::OsStr::from_bytes(&line[at..])))
    }));
    let arguments = std::fs::read(process.join("cmdline")).unwrap_or_default();
    for argument in arguments.split(|b| *b == 0).filter(|argument| argument.starts_with(b"/")) {
        let path = PathBuf::from(std::ffi::OsStr::from_bytes(argument));
        out.push(path.canonicalize().unwrap_or(path));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// MPROV-014
    #[test]
    fn a_file_that_a_running_process_names_is_in_use_until_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let (named, other) = (dir.path().join("a/model.gguf"), dir.path().join("a/model2.gguf"));
        std::fs::create_dir(dir.path().join("a")).unwrap();
        for path in [&named, &other] {
            std::fs::write(path, "x").unwrap();
        }
        let mut process = std::process::Command::new("tail").arg("-f").arg(&named).spawn().unwrap();
        let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while !InUse::below(dir.path()).has(&named) && std::time::Instant::now() < until {
            std::thread::yield_now();
        }
        let now = InUse::below(dir.path());
        assert!(now.has(&named) && now.has(&dir.path().join("a")), "the file, and the directory it is in");
        assert!(!now.has(&other), "another name that begins the same way is another file");
        process.kill().unwrap();
        process.wait().unwrap();
        assert!(!InUse::below(dir.path()).has(&named));
    }
}
