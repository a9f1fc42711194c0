//! The directory itself: made private, written atomically. A reader sees the old file or the new
//! one, and after a power cut too.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use wire::{Handoff, ReplicaKey};

use crate::{EngineUrl, EngineUrlError, Scan, scan};

/// A directory of handoff files, 0700 and ours.
#[derive(Debug, Clone)]
pub struct HandoffDir {
    path: PathBuf,
}

/// Why the directory could not be prepared or written.
#[derive(Debug, thiserror::Error)]
pub enum HandoffError {
    /// It could not be made, or made private.
    #[error("cannot prepare the handoff directory {}; check its parent's permissions and free space", path.display())]
    Prepare {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Someone else owns it and could replace every file in it.
    #[error("the handoff directory {} belongs to user {owner}; give it to this user or set paths.runtime elsewhere", path.display())]
    ForeignDirectory {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// The claim would be refused by every reader.
    #[error("refusing to publish a handoff for {replica}")]
    Invalid {
        /// The replica.
        replica: ReplicaKey,
        /// Why.
        source: EngineUrlError,
    },
    /// The file could not be written; the one before, if any, is untouched.
    #[error("cannot write the handoff {}", path.display())]
    Publish {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file could not be removed; readers may still see the claim.
    #[error("cannot withdraw the handoff {}", path.display())]
    Withdraw {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The name a replica's handoff is published under: `<pool>.<replica>.json`. Ids have no dots,
/// so two replicas never share a name.
pub(crate) fn file_name(key: &ReplicaKey) -> String {
    format!("{}.{}.json", key.pool, key.replica)
}

impl HandoffDir {
    /// Opens the directory, making it (0700) when it is missing.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, HandoffError> {
        let dir = Self { path: path.into() };
        dir.prepare()?;
        Ok(dir)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a replica's claim, replacing the one before at once and durably. A directory that
    /// was removed meanwhile is made again.
    pub fn publish(&self, handoff: &Handoff) -> Result<(), HandoffError> {
        let key = ReplicaKey { pool: handoff.pool_id.clone(), replica: handoff.replica_id.clone() };
        if let Err(source) = EngineUrl::try_new(&handoff.url) {
            return Err(HandoffError::Invalid { replica: key, source });
        }
        self.prepare()?;
        let path = self.path.join(file_name(&key));
        self.replace(&path, handoff).map_err(|source| HandoffError::Publish { path, source })
    }

    /// Removes a replica's claim. `false`: there was none.
    pub fn withdraw(&self, key: &ReplicaKey) -> Result<bool, HandoffError> {
        let path = self.path.join(file_name(key));
        let removed = match fs::remove_file(&path) {
            Ok(()) => self.sync().map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        };
        removed.map_err(|source| HandoffError::Withdraw { path, source })
    }

    /// Reads every file. A missing directory is an empty one.
    pub fn scan(&self) -> io::Result<Scan> {
        scan::scan(&self.path)
    }

    fn prepare(&self) -> Result<(), HandoffError> {
        let failed = |source| HandoffError::Prepare { path: self.path.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(&self.path).map_err(failed)?;
        let meta = fs::metadata(&self.path).map_err(failed)?;
        if meta.uid() != rustix::process::geteuid().as_raw() {
            return Err(HandoffError::ForeignDirectory { path: self.path.clone(), owner: meta.uid() });
        }
        if meta.mode() & 0o077 != 0 {
            fs::set_permissions(&self.path, Permissions::from_mode(0o700)).map_err(failed)?;
        }
        Ok(())
    }

    fn replace(&self, path: &Path, handoff: &Handoff) -> io::Result<()> {
        let mut bytes = serde_json::to_vec_pretty(handoff)?;
        bytes.push(b'\n');
        // In the same directory, so that the rename is one; O_EXCL, and 0600 for the API key in it.
        let mut file = tempfile::Builder::new()
            .prefix(".handoff-")
            .suffix(".tmp")
            .permissions(Permissions::from_mode(0o600))
            .tempfile_in(&self.path)?;
        file.write_all(&bytes)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        self.sync()
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}
