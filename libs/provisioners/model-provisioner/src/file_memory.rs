//! What was once found out about a file, believed only while path, size, times, inode and device
//! are the same. It is a cache, not a proof: whoever can write to the cache directory can
//! lie in it.

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
        Self { dir, writes: true }
    }

    /// Recalls and remembers nothing new.
    #[must_use]
    pub fn read_only(self) -> Self {
        Self { writes: false, ..self }
    }

    /// What is known about the file in this state.
    #[must_use]
    pub fn recall(&self, now: &FileState) -> Option<String> {
        let text = std::fs::read(self.entry(&now.path)).ok()?;
        let known: Remembered = serde_json::from_slice(&text).ok()?;
        (known.state == *now).then_some(known.fact)
    }

    /// Remembers `fact` about the file in this state. Not being able to is no error; it only costs
    /// time at the next start.
    pub fn remember(&self, state: &FileState, fact: &str) {
        if !self.writes {
            return;
        }
        let remembered = Remembered { state: state.clone(), fact: fact.to_owned() };
        let Ok(text) = serde_json::to_vec(&remembered) else { return };
        let write = || -> io::Result<()> {
            std::fs::create_dir_all(&self.dir)?;
            let temp = tempfile::NamedTempFile::new_in(&self.dir)?;
            std::fs::write(temp.path(), &text)?;
            temp.persist(self.entry(&state.path)).map(drop).map_err(|e| e.error)
        };
        if let Err(error) = write() {
            tracing::debug!(path = %state.path.display(), %error, "what was found out about a file is not remembered");
        }
    }

    fn entry(&self, path: &Path) -> PathBuf {
        let name = hex(&Sha256::digest(path.as_os_str().as_encoded_bytes()));
        self.dir.join(format!("{}.json", &name[..32]))
    }
}
