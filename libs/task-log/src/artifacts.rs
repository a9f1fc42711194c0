//! Artifacts: bytes on disk that are named by their digest, each caller's on a shelf of its own.
//!
//! A file is there whole or not at all, and is checked when it is read. Bounded: of a shelf that holds too
//! many, too large or too old ones the oldest go. Every call blocks on the disk.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};

use crate::journal::Space;
use crate::journal::files::{new_file, private_dir, sync_dir};

const UNFINISHED: &str = ".unfinished";

/// How much each shelf keeps.
#[derive(Debug, Clone)]
pub struct ArtifactLimits {
    /// Bytes in all; a larger artifact is refused.
    pub bytes: u64,
    /// Number.
    pub count: usize,
    /// Time since one was stored last.
    pub age: Duration,
}

/// The artifacts of a directory. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Artifacts {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    limits: ArtifactLimits,
    space: Space,
    shelves: Mutex<HashMap<String, Shelf>>,
    /// Files that are being written have names of their own.
    writes: AtomicU64,
}

/// What lies there, oldest first.
#[derive(Debug, Default)]
struct Shelf {
    kept: VecDeque<Kept>,
    bytes: u64,
}

#[derive(Debug)]
struct Kept {
    sha256: String,
    bytes: u64,
    at: SystemTime,
}

/// Why an artifact was not stored or not read.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// It alone is more than a caller may keep.
    #[error("{bytes} bytes are more than a caller may keep ({limit}); raise artifacts.keep_bytes")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// What fits.
        limit: u64,
    },
    /// The file is not what was stored.
    #[error("{} is not what was stored any more; it was set aside, store it again", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
    },
    /// The disk refuses.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl Artifacts {
    /// Those of `dir`, which is made where it is not there. What a crash left half-written goes.
    pub fn open(dir: &Path, limits: ArtifactLimits, space: Space) -> Result<Self, ArtifactError> {
        let failed = |source| ArtifactError::Io { action: "read", path: dir.to_owned(), source };
        private_dir(dir).map_err(failed)?;
        let mut shelves = HashMap::new();
        for entry in fs::read_dir(dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if let Ok(name) = entry.file_name().into_string()
                && entry.file_type().map_err(failed)?.is_dir()
            {
                shelves.insert(name, Shelf::found(&entry.path()).map_err(failed)?);
            }
        }
        let (dir, shelves, writes) = (dir.to_owned(), Mutex::new(shelves), AtomicU64::new(0));
        let inner = Inner { dir, limits, space, shelves, writes };
        let artifacts = Self { inner: Arc::new(inner) };
        artifacts.sweep();
        Ok(artifacts)
    }

    /// Stores bytes for `owner`, and says what they are called; they are on disk when this returns. What
    /// lies there already counts as stored now.
    pub fn put(&self, owner: &str, bytes: &[u8]) -> Result<String, ArtifactError> {
        let Inner { dir, limits, space, writes, .. } = &*self.inner;
        let size = bytes.len() as u64;
        if size > limits.bytes {
            return Err(ArtifactError::TooLarge { bytes: size, limit: limits.bytes });
        }
        let (sha256, shelf) = (hex(&Sha256::digest(bytes)), shelf_name(owner));
        let place = dir.join(&shelf);
        let path = place.join(&sha256);
        let failed = |source| ArtifactError::Io { action: "store", path: path.clone(), source };
        let unfinished = place.join(format!("{}{UNFINISHED}", writes.fetch_add(1, Ordering::Relaxed)));
        // Also what is there already is written: it may be let go of before its time is renewed. No lock
        // is held meanwhile, because others read.
        space.check().and_then(|()| write(&place, &unfinished, bytes)).map_err(failed)?;
        let mut shelves = self.lock();
        fs::rename(&unfinished, &path).and_then(|()| sync_dir(&place)).map_err(failed)?;
        let kept = shelves.entry(shelf).or_default();
        kept.forget(&sha256);
        kept.add(Kept { sha256: sha256.clone(), bytes: size, at: SystemTime::now() });
        kept.sweep(&place, limits);
        Ok(sha256)
    }

    /// The bytes of this name that `owner` has stored; of anybody where there is no owner.
    pub fn get(&self, owner: Option<&str>, sha256: &str) -> Result<Option<Vec<u8>>, ArtifactError> {
        let well_formed =
            sha256.len() == 64 && sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !well_formed {
            return Ok(None);
        }
        self.sweep();
        let shelf = {
            let shelves = self.lock();
            let holds = |name: &String| shelves.get(name).is_some_and(|shelf| shelf.holds(sha256));
            match owner {
                Some(owner) => Some(shelf_name(owner)).filter(holds),
                None => shelves.keys().find(|name| holds(name)).cloned(),
            }
        };
        let Some(shelf) = shelf else { return Ok(None) };
        let path = self.inner.dir.join(&shelf).join(sha256);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            // Let go of meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(ArtifactError::Io { action: "read", path, source }),
        };
        if hex(&Sha256::digest(&bytes)) == sha256 {
            return Ok(Some(bytes));
        }
        if let Some(shelf) = self.lock().get_mut(&shelf) {
            shelf.forget(sha256);
        }
        let _left_where_it_is = fs::rename(&path, path.with_extension("damaged"));
        Err(ArtifactError::Damaged { path })
    }

    fn sweep(&self) {
        let mut shelves = self.lock();
        for (name, shelf) in shelves.iter_mut() {
            shelf.sweep(&self.inner.dir.join(name), &self.inner.limits);
        }
    }

    // A poisoned lock is taken as it is: the files are the truth, and every change below is complete.
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Shelf>> {
        self.inner.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelf {
    fn found(dir: &Path) -> io::Result<Self> {
        let mut kept = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if name.ends_with(UNFINISHED) {
                fs::remove_file(entry.path())?;
            } else if name.len() == 64 {
                let meta = entry.metadata()?;
                kept.push(Kept { sha256: name, bytes: meta.len(), at: meta.modified()? });
            }
        }
        kept.sort_by_key(|kept| kept.at);
        let bytes = kept.iter().map(|kept| kept.bytes).sum();
        Ok(Self { kept: kept.into(), bytes })
    }

    fn holds(&self, sha256: &str) -> bool {
        self.kept.iter().any(|kept| kept.sha256 == sha256)
    }

    fn add(&mut self, kept: Kept) {
        self.bytes += kept.bytes;
        self.kept.push_back(kept);
    }

    fn forget(&mut self, sha256: &str) {
        if let Some(at) = self.kept.iter().position(|kept| kept.sha256 == sha256)
            && let Some(kept) = self.kept.remove(at)
        {
            self.bytes = self.bytes.saturating_sub(kept.bytes);
        }
    }

    fn sweep(&mut self, dir: &Path, limits: &ArtifactLimits) {
        while let Some(oldest) = self.kept.front() {
            let too_much = self.bytes > limits.bytes || self.kept.len() > limits.count;
            // A clock that was set back makes nothing old.
            if !too_much && oldest.at.elapsed().unwrap_or_default() < limits.age {
                return;
            }
            let path = dir.join(&oldest.sha256);
            if let Err(error) = fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(path = %path.display(), %error, "an artifact that is let go of stays on disk");
            }
            self.bytes = self.bytes.saturating_sub(oldest.bytes);
            self.kept.pop_front();
        }
    }
}

/// Callers' names never touch a path.
fn shelf_name(owner: &str) -> String {
    hex(&Sha256::digest(owner.as_bytes())[..16])
}

fn write(dir: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    private_dir(dir)?;
    let mut file = new_file(path)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_data());
    if written.is_err() {
        let _only_takes_room = fs::remove_file(path);
    }
    written
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
