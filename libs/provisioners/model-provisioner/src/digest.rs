//! SHA-256 of files, streamed, and remembered: a second start must not read 20 GB again.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::Cancel;
use crate::file_memory::{FileMemory, FileState};

/// Why a file has no digest.
#[derive(Debug, thiserror::Error)]
pub enum DigestError {
    /// The file cannot be read.
    #[error("cannot read {path} to compute its SHA-256")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Someone asked to stop.
    #[error("interrupted while computing the SHA-256 of {path}")]
    Cancelled {
        /// The file.
        path: PathBuf,
    },
}

/// SHA-256 (hex) of a file. `progress` receives the bytes read so far, about once per 4 MiB.
pub fn sha256_file(
    path: &Path,
    progress: &mut dyn FnMut(u64),
    cancel: &Cancel,
) -> Result<String, DigestError> {
    let refuse = |source| DigestError::Read { path: path.to_path_buf(), source };
    let mut file = File::open(path).map_err(refuse)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut done = 0u64;
    loop {
        if cancel.is_cancelled() {
            return Err(DigestError::Cancelled { path: path.to_path_buf() });
        }
        let n = file.read(&mut buffer).map_err(refuse)?;
        if n == 0 {
            return Ok(hex(&hasher.finalize()));
        }
        hasher.update(&buffer[..n]);
        done += n as u64;
        if done.is_multiple_of(4 << 20) {
            progress(done);
        }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The digest of a model from those of its files: the file's own, or for a split set the digest of all of
/// them, one a line. Anybody can compute it with `sha256sum`.
pub(crate) fn of_model<'a>(files: impl ExactSizeIterator<Item = &'a str>) -> String {
    let single = files.len() == 1;
    let mut lines = String::new();
    for digest in files {
        if single {
            return digest.to_owned();
        }
        lines.push_str(digest);
        lines.push('\n');
    }
    hex(&Sha256::digest(lines.as_bytes()))
}

/// The remembered digests of files.
#[derive(Debug, Clone)]
pub struct DigestCache {
    memory: FileMemory,
}

impl DigestCache {
    /// `dir` is created when something is remembered.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self { memory: FileMemory::new(dir) }
    }

    /// The digest of `path`: remembered when nothing about the file changed, else computed and
    /// remembered.
    pub fn digest(
        &self,
        path: &Path,
        progress: &mut dyn FnMut(u64),
        cancel: &Cancel,
    ) -> Result<String, DigestError> {
        let refuse = |source| DigestError::Read { path: path.to_path_buf(), source };
        let before = FileState::of(path).map_err(refuse)?;
        if let Some(sha256) = self.memory.recall(&before).filter(|sha256| sha256.len() == 64) {
            return Ok(sha256);
        }
        let sha256 = sha256_file(path, progress, cancel)?;
        // Whoever wrote it may just have done so. A file that changes while it is read has no digest worth
        // remembering.
        let settled = File::open(path).and_then(|file| file.sync_all());
        if before == FileState::of(path).map_err(refuse)? {
            match settled {
                Ok(()) => self.memory.remember(&before, &sha256),
                Err(_) => self.memory.remember_until_down(&before, &sha256),
            }
        }
        Ok(sha256)
    }

    /// Remembers a digest that was computed while the file was written and put onto the disk.
    pub(crate) fn know(&self, path: &Path, sha256: &str) {
        if let Ok(state) = FileState::of(path) {
            self.memory.remember(&state, sha256);
        }
    }

    /// Remembers a digest that was computed while the file was written. Until [`DigestCache::settle`] it is
    /// computed again when the machine went down meanwhile.
    pub(crate) fn know_until_down(&self, path: &Path, sha256: &str) {
        if let Ok(state) = FileState::of(path) {
            self.memory.remember_until_down(&state, sha256);
        }
    }

    /// Whether the digest of `path` is known, and only until the machine goes down.
    pub(crate) fn is_unsettled(&self, path: &Path) -> bool {
        FileState::of(path).is_ok_and(|state| self.memory.recall_unsettled(&state).is_some())
    }

    /// Puts the file onto the disk and remembers its digest for good. The digest of one that cannot be put
    /// there stays what it was.
    pub(crate) fn settle(&self, path: &Path) -> std::io::Result<()> {
        let before = FileState::of(path)?;
        let Some(sha256) = self.memory.recall_unsettled(&before) else { return Ok(()) };
        File::open(path)?.sync_all()?;
        if before == FileState::of(path)? {
            self.memory.remember(&before, &sha256);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn the_digest_is_sha256() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("empty");
        std::fs::write(&path, "").unwrap();
        assert_eq!(sha256_file(&path, &mut |_| (), &Cancel::new()).unwrap(), EMPTY);
    }

    #[test]
    fn an_unchanged_file_is_not_read_twice_and_a_changed_one_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model");
        let cache = DigestCache::new(dir.path().join("digests"));
        std::fs::write(&path, vec![7u8; 5 << 20]).unwrap();
        let mut reads = 0;
        let first = cache.digest(&path, &mut |_| reads += 1, &Cancel::new()).unwrap();
        assert_eq!(reads, 1);
        assert_eq!(cache.digest(&path, &mut |_| reads += 1, &Cancel::new()).unwrap(), first);
        assert_eq!(reads, 1, "the second time nothing is read");
        std::fs::write(&path, vec![8u8; 5 << 20]).unwrap();
        assert_ne!(cache.digest(&path, &mut |_| reads += 1, &Cancel::new()).unwrap(), first);
        assert_eq!(reads, 2);
    }

    #[test]
    fn a_cancelled_digest_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model");
        std::fs::write(&path, "x").unwrap();
        let cancel = Cancel::new();
        cancel.cancel();
        let error = sha256_file(&path, &mut |_| (), &cancel).unwrap_err();
        assert!(matches!(error, DigestError::Cancelled { .. }));
    }
}
