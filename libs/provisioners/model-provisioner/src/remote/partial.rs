//! A download that is not finished: bytes under a name that nobody takes for a model, what they are
//! part of in a small file beside them, and the hash of all of them so far, computed while the next are written.
//!
//! One connection writes from the beginning on. Several write pieces here and there; the hash follows what
//! lies without a gap from the beginning on, by reading it back.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::FetchError;
use super::chunk::{Buffers, Chunk};
use super::error::local;
use super::hasher::Hasher;
use super::pieces::Pieces;
use crate::Cancel;
use crate::file_memory::boot_id;

/// What the bytes are part of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Whole {
    pub(crate) url: String,
    pub(crate) etag: Option<String>,
    pub(crate) total: Option<u64>,
    /// The life of the machine in which it was begun.
    #[serde(default)]
    boot: Option<String>,
    /// How long a piece is, once several connections write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    piece: Option<u64>,
}

impl Whole {
    pub(crate) fn of(url: String, etag: Option<String>, total: Option<u64>) -> Self {
        Self { url, etag, total, boot: boot_id(), piece: None }
    }

    pub(super) fn read(sidecar: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(sidecar).ok()?).ok()
    }

    /// What several connections wrote of the file at `path`; none where one did.
    fn pieces(&self, path: &Path) -> Option<std::io::Result<Pieces>> {
        let (size, total) = (self.piece?, self.total?);
        Some(Pieces::open(&path.with_extension("pieces"), size, total))
    }

    /// Whether what is there can be gone on with. After the machine went down, bytes can be missing that were
    /// written: only a digest finds that out, and only at the beginning of the file nothing is between them.
    fn survived(&self, known_digest: bool) -> bool {
        let same_life = self.boot.is_some() && self.boot == boot_id();
        same_life || known_digest && self.piece.is_none()
    }
}

/// Bytes that are there of the unfinished file at `path`.
pub(super) fn bytes_at(path: &Path) -> u64 {
    let pieces = Whole::read(&path.with_extension("json")).and_then(|whole| whole.pieces(path));
    match pieces {
        Some(pieces) => pieces.map_or(0, |pieces| pieces.there()),
        None => path.metadata().map_or(0, |meta| meta.len()),
    }
}

#[derive(Debug)]
pub(crate) struct Partial {
    path: PathBuf,
    file: Arc<File>,
    hasher: Hasher,
    buffers: Buffers,
    /// Bytes from the beginning on that are there and hashed.
    len: u64,
    whole: Whole,
    /// Once several connections write.
    pieces: Option<Arc<Pieces>>,
}

impl Partial {
    /// Opens what is there of `url`, hashing it again, or begins anew.
    pub(crate) fn open(
        path: &Path,
        url: &str,
        known_digest: bool,
        progress: &mut dyn FnMut(u64),
        cancel: &Cancel,
    ) -> Result<Self, FetchError> {
        let file = File::options().create(true).truncate(false).read(true).write(true).open(path);
        let file = file.map_err(local("open", path))?;
        let mut partial = Self {
            path: path.to_path_buf(),
            file: Arc::new(file),
            hasher: Hasher::start().map_err(local("hash", path))?,
            buffers: Buffers::default(),
            len: 0,
            whole: Whole::default(),
            pieces: None,
        };
        let known = Whole::read(&partial.sidecar()).filter(|whole| whole.url == url);
        let known = known.filter(|whole| whole.survived(known_digest));
        let pieces = known.as_ref().and_then(|whole| whole.pieces(path));
        match (known, pieces) {
            (Some(whole), Some(Ok(pieces))) => {
                // They are hashed while the others come.
                partial.pieces = Some(Arc::new(pieces));
                partial.whole = whole;
            }
            (Some(whole), None) => partial.rehash(whole, progress, cancel)?,
            _ => partial.restart(Whole::of(url.to_owned(), None, None))?,
        }
        Ok(partial)
    }

    fn rehash(
        &mut self,
        whole: Whole,
        progress: &mut dyn FnMut(u64),
        cancel: &Cancel,
    ) -> Result<(), FetchError> {
        while self.read_back(u64::MAX)? {
            if cancel.is_cancelled() {
                return Err(FetchError::Cancelled);
            }
            progress(self.len);
        }
        if whole.total.is_some_and(|total| self.len > total) {
            return self.restart(Whole { piece: None, ..whole });
        }
        self.whole = whole;
        Ok(())
    }

    /// Hashes the next bytes that lie there before `limit`; false when there are none.
    fn read_back(&mut self, limit: u64) -> Result<bool, FetchError> {
        let at = self.len;
        let wanted = usize::try_from(limit.saturating_sub(at)).unwrap_or(usize::MAX);
        let bytes = self.buffers.filled(|buffer| {
            let wanted = wanted.min(buffer.len());
            self.file.read_at(buffer.get_mut(..wanted).unwrap_or_default(), at)
        });
        let bytes = bytes.map_err(local("read", &self.path))?;
        let some = !bytes.is_empty();
        self.len += bytes.len() as u64;
        self.hash(bytes)?;
        Ok(some)
    }

    /// Throws away what there is and notes what comes instead, before any byte of it.
    pub(crate) fn restart(&mut self, whole: Whole) -> Result<(), FetchError> {
        self.pieces = None;
        // ext4 puts a file that was ever cut to nothing onto the disk when it is closed, and whoever closes it
        // waits: a new one is left as it is.
        let empty = || match self.file.metadata()?.len() {
            0 => Ok(()),
            _ => self.file.set_len(0),
        };
        empty().and_then(|()| self.note(&whole)).map_err(local("write", &self.path))?;
        // Without a word of them beside the file they say nothing.
        let _ = std::fs::remove_file(self.path.with_extension("pieces"));
        self.hasher.restart().map_err(local("hash", &self.path))?;
        self.len = 0;
        self.whole = whole;
        Ok(())
    }

    fn note(&self, whole: &Whole) -> std::io::Result<()> {
        std::fs::write(self.sidecar(), serde_json::to_vec(whole)?)
    }

    fn sidecar(&self) -> PathBuf {
        self.path.with_extension("json")
    }

    pub(crate) fn append(&mut self, bytes: Chunk) -> Result<(), FetchError> {
        let (at, count) = (self.len, bytes.len() as u64);
        let written = self.file.write_all_at(&bytes, at);
        let noted = || self.pieces.as_ref().map_or(Ok(()), |pieces| pieces.wrote(at, count));
        written.and_then(|()| noted()).map_err(local("write", &self.path))?;
        self.len += count;
        self.hash(bytes)
    }

    fn hash(&self, bytes: Chunk) -> Result<(), FetchError> {
        self.hasher.update(bytes).map_err(local("hash", &self.path))
    }

    /// Lets several connections write from now on, `piece` bytes with each request; nothing of what is there
    /// is lost. Only for a file whose length is known.
    pub(super) fn open_to_several(&mut self, piece: u64) -> Result<(), FetchError> {
        let (None, Some(total)) = (&self.pieces, self.whole.total) else { return Ok(()) };
        let whole = Whole { piece: Some(piece), ..self.whole.clone() };
        let place = self.path.with_extension("pieces");
        // First the notes, then the word that they count.
        let pieces = Pieces::create(&place, piece, total, self.len).map_err(local("write", &place))?;
        self.note(&whole).map_err(local("write", &self.path))?;
        self.pieces = Some(Arc::new(pieces));
        self.whole = whole;
        Ok(())
    }

    /// Hashes some of what several connections have written; false when nothing new lies without a gap.
    pub(super) fn follow(&mut self) -> Result<bool, FetchError> {
        let Some(reach) = self.pieces.as_ref().map(|pieces| pieces.reach(self.len)) else { return Ok(false) };
        if reach <= self.len {
            return Ok(false);
        }
        match self.read_back(reach)? {
            true => Ok(true),
            false => {
                let gone = std::io::Error::other("it is shorter than what was written to it");
                Err(local("read", &self.path)(gone))
            }
        }
    }

    /// What several connections share; none while there is only one.
    pub(super) fn shared(&self) -> Option<(Arc<Pieces>, Arc<File>)> {
        Some((self.pieces.clone()?, self.file.clone()))
    }

    /// Bytes from the beginning on, all of them hashed.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// All bytes, wherever they lie.
    pub(crate) fn there(&self) -> u64 {
        self.pieces.as_ref().map_or(self.len, |pieces| pieces.there())
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
        Ok(Finished { path: self.path, len: self.len, sha256 })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// All bytes of a download, still under a name that nobody takes for a model.
#[derive(Debug)]
pub(crate) struct Finished {
    path: PathBuf,
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

    /// Gives the bytes their final name. They need not be on the disk: whoever believes them looks whether
    /// the machine went down since ([`super::settle`]).
    pub(crate) fn rename(self, to: &Path) -> Result<(), FetchError> {
        std::fs::rename(&self.path, to).map_err(local("move the model to", to))?;
        self.forget();
        Ok(())
    }

    fn forget(&self) {
        // Left behind they describe a file that is not there, and are replaced by the next one.
        for about in ["json", "pieces"] {
            let _ = std::fs::remove_file(self.path.with_extension(about));
        }
    }
}
