//! What was once found out about a file, believed only while path, size, times, inode and device
//! are the same. It is a cache, not a proof: whoever can write to the cache directory can
//! lie in it.
//!
//! What was found out about bytes that may not have reached the disk is believed only until the machine
//! goes down: after a power cut a file can have its size and times and not its bytes.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::digest::hex;

/// One small JSON file per remembered file, in one directory.
#[derive(Debug, Clone)]
pub struct FileMemory {
    dir: PathBuf,
    writes: bool,
    /// Which life of the machine this is; unknown where the kernel does not say.
    boot: Option<String>,
}

/// Which state of a file something was found out about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileState {
    path: PathBuf,
    size: u64,
    mtime: i64,
    mtime_nsec: i64,
    /// Of the inode: a modification time can be set back, this one cannot.
    ctime: i64,
    ctime_nsec: i64,
    inode: u64,
    device: u64,
}

#[derive(Serialize, Deserialize)]
struct Remembered {
    #[serde(flatten)]
    state: FileState,
    /// SHA-256 of the file, or whatever else was asked; the name is that of the first version.
    #[serde(rename = "sha256")]
    fact: String,
    /// Believed in this life of the machine alone; absent once the file is on the disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    boot: Option<String>,
}

impl FileState {
    /// The file as it is now. Symbolic links are followed: what they lead to is what counts.
    pub fn of(path: &Path) -> io::Result<Self> {
        Ok(Self::described(path, &path.metadata()?))
    }

    fn described(path: &Path, meta: &Metadata) -> Self {
        Self {
            path: path.to_path_buf(),
            size: meta.len(),
            mtime: meta.mtime(),
            mtime_nsec: meta.mtime_nsec(),
            ctime: meta.ctime(),
            ctime_nsec: meta.ctime_nsec(),
            inode: meta.ino(),
            device: meta.dev(),
        }
    }
}

impl FileMemory {
    /// `dir` is created when something is remembered.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self { dir, writes: true, boot: boot_id() }
    }

    /// Recalls and remembers nothing new.
    #[must_use]
    pub fn read_only(self) -> Self {
        Self { writes: false, ..self }
    }

    /// What is known about the file in this state.
    #[must_use]
    pub fn recall(&self, now: &FileState) -> Option<String> {
        self.known(now).map(|known| known.fact)
    }

    /// What is known about the file in this state, and only until the machine goes down.
    pub(crate) fn recall_unsettled(&self, now: &FileState) -> Option<String> {
        self.known(now).filter(|known| known.boot.is_some()).map(|known| known.fact)
    }

    fn known(&self, now: &FileState) -> Option<Remembered> {
        let text = std::fs::read(self.entry(&now.path)).ok()?;
        let known: Remembered = serde_json::from_slice(&text).ok()?;
        let same_life = known.boot.is_none() || known.boot == self.boot;
        (known.state == *now && same_life).then_some(known)
    }

    /// Remembers `fact` about the file in this state, whose bytes are on the disk. Not being able to is no
    /// error; it only costs time at the next start.
    pub fn remember(&self, state: &FileState, fact: &str) {
        self.note(Remembered { state: state.clone(), fact: fact.to_owned(), boot: None });
    }

    /// The same of a file whose bytes may still be on their way to the disk.
    pub(crate) fn remember_until_down(&self, state: &FileState, fact: &str) {
        // Without knowing which life this is, it would be believed in every other one, too.
        if let boot @ Some(_) = self.boot.clone() {
            self.note(Remembered { state: state.clone(), fact: fact.to_owned(), boot });
        }
    }

    fn note(&self, remembered: Remembered) {
        if !self.writes {
            return;
        }
        let Ok(text) = serde_json::to_vec(&remembered) else { return };
        let write = || -> io::Result<()> {
            std::fs::create_dir_all(&self.dir)?;
            let temp = tempfile::NamedTempFile::new_in(&self.dir)?;
            std::fs::write(temp.path(), &text)?;
            temp.persist(self.entry(&remembered.state.path)).map(drop).map_err(|e| e.error)
        };
        if let Err(error) = write() {
            let path = remembered.state.path.display();
            tracing::debug!(%path, %error, "what was found out about a file is not remembered");
        }
    }

    fn entry(&self, path: &Path) -> PathBuf {
        let name = hex(&Sha256::digest(path.as_os_str().as_encoded_bytes()));
        self.dir.join(format!("{}.json", &name[..32]))
    }
}

/// The kernel's name for the time since the machine came up.
pub(crate) fn boot_id() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned()).filter(|id| !id.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// MPROV-025
    #[test]
    fn what_may_not_be_on_the_disk_is_believed_until_the_machine_goes_down() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model");
        std::fs::write(&path, "bytes").unwrap();
        let state = FileState::of(&path).unwrap();
        let in_life = |boot: Option<&str>| FileMemory {
            dir: dir.path().join("memory"),
            writes: true,
            boot: boot.map(str::to_owned),
        };
        in_life(Some("one")).remember_until_down(&state, "fact");
        assert_eq!(in_life(Some("one")).recall(&state).as_deref(), Some("fact"));
        assert_eq!(in_life(Some("one")).recall_unsettled(&state).as_deref(), Some("fact"));
        assert_eq!(in_life(Some("two")).recall(&state), None);
        assert_eq!(in_life(None).recall(&state), None);
        in_life(Some("one")).remember(&state, "fact");
        assert_eq!(in_life(Some("two")).recall(&state).as_deref(), Some("fact"), "it is on the disk now");
        assert_eq!(in_life(Some("one")).recall_unsettled(&state), None);
        in_life(None).remember_until_down(&state, "other");
        assert_eq!(
            in_life(None).recall(&state).as_deref(),
            Some("fact"),
            "nothing is noted of an unknown life"
        );
    }
}
