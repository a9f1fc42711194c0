//! A download that is not finished: bytes under a name that nobody takes for a model, what they are
//! part of in a small file beside them, and the hash of all of them so far, computed while the next are written.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::FetchError;
use super::chunk::{Buffers, Chunk};
use super::error::local;
use super::flusher::Flusher;
use super::hasher::Hasher;
use crate::Cancel;

/// What the bytes are part of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Whole {
    pub(crate) url: String,
    pub(crate) etag: Option<String>,
    pub(crate) total: Option<u64>,
}

#[derive(Debug)]
pub(crate) struct Partial {
    path: PathBuf,
    sidecar: PathBuf,
    file: File,
    hasher: Hasher,
    flusher: Flusher,
    len: u64,
    whole: Whole,
}

impl Partial {
    /// Opens what is there of `url`, hashing it again, or begins anew.
    pub(crate) fn open(
        path: &Path,
        url: &str,
        progress: &mut dyn FnMut(u64),
        cancel: &Cancel,
    ) -> Result<Self, FetchError> {
        let file = File::options().create(true).truncate(false).read(true).write(true).open(path);
        let file = file.map_err(local("open", path))?;
        let nothing = Whole { url: url.to_owned(), etag: None, total: None };
        let mut partial = Self {
            path: path.to_path_buf(),
            sidecar: path.with_extension("json"),
            file,
            hasher: Hasher::start().map_err(local("hash", path))?,
            flusher: Flusher::start(path).map_err(local("open", path))?,
            len: 0,
            whole: nothing.clone(),
        };
        let known: Option<Whole> =
            std::fs::read(&partial.sidecar).ok().and_then(|text| serde_json::from_slice(&text).ok());
        match known.filter(|whole| whole.url == url) {
            Some(whole) => partial.rehash(whole, progress, cancel)?,
            None => partial.restart(nothing)?,
        }
        Ok(partial)
    }

    fn rehash(
        &mut self,
        whole: Whole,
        progress: &mut dyn FnMut(u64),
        cancel: &Cancel,
    ) -> Result<(), FetchError> {
        let buffers = Buffers::default();
        loop {
            if cancel.is_cancelled() {
                return Err(FetchError::Cancelled);
            }
            let bytes = buffers.filled(|buffer| self.file.read(buffer)).map_err(local("read", &self.path))?;
            if bytes.is_empty() {
                break;
            }
            self.len += bytes.len() as u64;
            self.hash(bytes)?;
            progress(self.len);
        }
        if whole.total.is_some_and(|total| self.len > total) {
            return self.restart(whole);
        }
        self.whole = whole;
        Ok(())
    }

    /// Throws away what there is and notes what comes instead, before any byte of it.
    pub(crate) fn restart(&mut self, whole: Whole) -> Result<(), FetchError> {
        let mut empty = || {
            self.file.set_len(0)?;
            self.file.seek(SeekFrom::Start(0))?;
            std::fs::write(&self.sidecar, serde_json::to_vec(&whole)?)
        };
        empty().map_err(local("write", &self.path))?;
        self.hasher.restart().map_err(local("hash", &self.path))?;
        self.len = 0;
        self.whole = whole;
        Ok(())
    }

    pub(crate) fn append(&mut self, bytes: Chunk) -> Result<(), FetchError> {
        self.file.write_all(&bytes).map_err(local("write", &self.path))?;
        self.len += bytes.len() as u64;
        self.flusher.wrote(bytes.len());
        self.hash(bytes)
    }

    fn hash(&self, bytes: Chunk) -> Result<(), FetchError> {
        self.hasher.update(bytes).map_err(local("hash", &self.path))
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn whole(&self) -> &Whole {
        &self.whole
    }

    /// All that was announced is there.
    pub(crate) fn is_complete(&self) -> bool {
        self.whole.total == Some(self.len)
    }

    /// Nothing more comes; waits for the hash of what did.
    pub(crate) fn finish(self) -> Result<Finished, FetchError> {
        let sha256 = self.hasher.digest().map_err(local("hash", &self.path))?;
        let Self { path, sidecar, file, len, .. } = self;
        Ok(Finished { path, sidecar, file, len, sha256 })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// All bytes of a download, still under a name that nobody takes for a model.
#[derive(Debug)]
pub(crate) struct Finished {
    path: PathBuf,
    sidecar: PathBuf,
    file: File,
    len: u64,
    sha256: String,
}

impl Finished {
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn sha256(&self) -> &str {
        &self.sha256
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The bytes are wrong: the next try begins with none.
    pub(crate) fn discard(self) -> Result<(), FetchError> {
        std::fs::remove_file(&self.path).map_err(local("remove", &self.path))?;
        self.forget();
        Ok(())
    }

    /// Gives the bytes their final name.
    pub(crate) fn rename(self, to: &Path) -> Result<(), FetchError> {
        self.file.sync_all().map_err(local("write", &self.path))?;
        std::fs::rename(&self.path, to).map_err(local("move the model to", to))?;
        self.forget();
        Ok(())
    }

    fn forget(&self) {
        // Left behind it describes a file that is not there, and is replaced by the next one.
        let _ = std::fs::remove_file(&self.sidecar);
    }
}
