//! Fetched models on disk: `<models>/<sha256>/<file>` with a manifest beside it, an index from
//! references to digests, unfinished downloads and the locks that make them one at a time.

use std::fs::{File, TryLockError};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use wire::{ModelPart, ModelRecord, SplitName};

use super::FetchError;
use super::error::local;
use super::fetch::Target;
use super::partial::Finished;
use super::version;
use crate::Cancel;
use crate::digest::{hex, of_model};

#[derive(Debug, Clone)]
pub(crate) struct Store {
    models: PathBuf,
}

/// A verified model: one file, or a split set by its first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) path: PathBuf,
    pub(crate) sha256: String,
    pub(crate) size: u64,
    /// The files of a split set; empty for one file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    parts: Vec<Piece>,
}

/// One verified file of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Piece {
    pub(crate) path: PathBuf,
    pub(crate) sha256: String,
    pub(crate) size: u64,
}

impl Entry {
    /// `None` without any file.
    pub(crate) fn of(mut pieces: Vec<Piece>) -> Option<Self> {
        let path = pieces.first()?.path.clone();
        let sha256 = of_model(pieces.iter().map(|piece| piece.sha256.as_str()));
        let size = pieces.iter().map(|piece| piece.size).sum();
        if pieces.len() == 1 {
            pieces.clear();
        }
        Some(Self { path, sha256, size, parts: pieces })
    }

    /// Its files, in order.
    pub(crate) fn pieces(&self) -> Vec<Piece> {
        match self.parts.is_empty() {
            true => {
                vec![Piece { path: self.path.clone(), sha256: self.sha256.clone(), size: self.size }]
            }
            false => self.parts.clone(),
        }
    }
}

/// Who vouches for the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Trust {
    /// They have the digest that the hub or the configuration names.
    Verified,
    /// Nobody named a digest; the recorded one was computed from what came.
    UnverifiedBySource,
}

/// What is written beside a fetched file.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// Absent from those of the time before it was written down.
    #[serde(default = "version::first", deserialize_with = "version::known")]
    schema_version: u32,
    pub(crate) reference: String,
    pub(crate) url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    commit: Option<String>,
    file: String,
    pub(crate) sha256: String,
    pub(crate) size_bytes: u64,
    pub(crate) trust: Trust,
    pub(crate) fetched_at_unix_s: u64,
    /// The files of a split set; empty for one file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    parts: Vec<Part>,
}

/// One file of a split set.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Part {
    file: String,
    sha256: String,
    size_bytes: u64,
}

impl Manifest {
    /// For a model that goes to another machine. What the hub's cache holds has the hub's digest; for a file
    /// of that machine nobody vouches.
    pub(crate) fn packed(record: &ModelRecord, held: Option<&Self>, parts: &[ModelPart]) -> Self {
        let part = |part: &ModelPart| Part {
            file: local_name(&part.path.file_name().unwrap_or_default().to_string_lossy()),
            sha256: part.digest.clone(),
            size_bytes: part.size_bytes,
        };
        let mut parts: Vec<Part> = parts.iter().map(part).collect();
        let file = parts.first().map(|part| part.file.clone()).unwrap_or_default();
        if parts.len() == 1 {
            parts.clear();
        }
        Self {
            schema_version: version::VERSION,
            reference: record.model_ref.clone(),
            url: held.map(|held| held.url.clone()).unwrap_or_default(),
            commit: held.and_then(|held| held.commit.clone()),
            file,
            sha256: record.digest.clone(),
            size_bytes: record.size_bytes,
            trust: match held {
                Some(held) => held.trust,
                None if record.model_ref.starts_with("file:") => Trust::UnverifiedBySource,
                None => Trust::Verified,
            },
            fetched_at_unix_s: held.map_or(0, |held| held.fetched_at_unix_s),
            parts,
        }
    }

    /// The files it speaks of, below `dir`.
    pub(crate) fn pieces(&self, dir: &Path) -> Vec<Piece> {
        let own = Part { file: self.file.clone(), sha256: self.sha256.clone(), size_bytes: self.size_bytes };
        let parts = if self.parts.is_empty() { vec![own] } else { self.parts.clone() };
        let piece = |part: Part| Piece {
            path: dir.join(local_name(&part.file)),
            sha256: part.sha256,
            size: part.size_bytes,
        };
        parts.into_iter().map(piece).collect()
    }
}

/// A file of a model that is ready to get its final name, or has it already.
pub(crate) enum Ready {
    /// Verified, under its partial name.
    Fetched(Finished),
    /// Moved there before an interruption.
    InPlace(Piece),
}

impl Ready {
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Fetched(file) => file.path(),
            Self::InPlace(piece) => &piece.path,
        }
    }

    fn sha256(&self) -> String {
        match self {
            Self::Fetched(file) => file.sha256().to_owned(),
            Self::InPlace(piece) => piece.sha256.clone(),
        }
    }

    fn size(&self) -> u64 {
        match self {
            Self::Fetched(file) => file.len(),
            Self::InPlace(piece) => piece.size,
        }
    }
}

/// The digest of the model that these files are.
pub(crate) fn digest_of(ready: &[Ready]) -> String {
    let digests: Vec<String> = ready.iter().map(Ready::sha256).collect();
    of_model(digests.iter().map(String::as_str))
}

#[derive(Serialize, Deserialize)]
struct Indexed {
    /// Absent from those of the time before it was written down.
    #[serde(default = "version::first", deserialize_with = "version::known")]
    schema_version: u32,
    reference: String,
    #[serde(flatten)]
    entry: Entry,
}

pub(crate) const MANIFEST: &str = "manifest.json";
const RETRY: Duration = Duration::from_millis(50);

/// A held file lock; released when dropped, or by the system when the process dies.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "held, not read")] File);

/// A file name that stands for a URL or a reference.
pub(crate) fn key(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes())).chars().take(32).collect()
}

/// A plain file name ending in `.gguf` for whatever the source calls it.
pub(crate) fn local_name(remote: &str) -> String {
    let last = remote.rsplit('/').next().unwrap_or_default();
    let stem = last.strip_suffix(".gguf").unwrap_or(last);
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    // The engine finds the files of a set by the end of their names.
    let (stem, tail) = match SplitName::parse(last) {
        Some(name) => (name.prefix, format!("-{:05}-of-{:05}", name.number, name.count)),
        None => (stem.to_owned(), String::new()),
    };
    let stem: String = stem.trim_start_matches('.').chars().map(plain).take(120).collect();
    if !tail.is_empty() {
        return format!("{}{tail}.gguf", if stem.is_empty() { "model" } else { &stem });
    }
    if stem.is_empty() { "model.gguf".to_owned() } else { format!("{stem}.gguf") }
}

impl Store {
    pub(crate) fn new(models: &Path) -> Self {
        Self { models: models.to_path_buf() }
    }

    /// Where unfinished bytes of `key` are.
    pub(crate) fn partial(&self, key: &str) -> PathBuf {
        self.models.join(".partial").join(format!("{key}.part"))
    }

    /// What `reference` led to the last time. What a later program noted is an error.
    pub(crate) fn recall(&self, reference: &str) -> Result<Option<Entry>, FetchError> {
        let path = self.index(reference);
        version::refuse_later(&path)?;
        let text = std::fs::read(path).unwrap_or_default();
        let known: Option<Indexed> = serde_json::from_slice(&text).ok();
        Ok(known.filter(|known| known.reference == reference).map(|known| known.entry))
    }

    /// Remembers what `reference` leads to from now on.
    pub(crate) fn record(&self, reference: &str, entry: &Entry, reaches: Disk) -> Result<(), FetchError> {
        let (schema_version, reference, entry) = (version::VERSION, reference.to_owned(), entry.clone());
        let path = self.index(&reference);
        version::refuse_later(&path)?;
        write_json(&path, &Indexed { schema_version, reference, entry }, reaches)
    }

    /// A fetched model with this digest.
    pub(crate) fn find(&self, sha256: &str) -> Option<Entry> {
        let manifest = self.held(sha256)?;
        Entry::of(manifest.pieces(&self.dir(sha256)))
    }

    /// What is written beside the model with this digest; `None` unless all of its files are there.
    pub(crate) fn held(&self, sha256: &str) -> Option<Manifest> {
        if !is_digest(sha256) {
            return None;
        }
        let dir = self.dir(sha256);
        let manifest: Manifest = serde_json::from_slice(&std::fs::read(dir.join(MANIFEST)).ok()?).ok()?;
        manifest.pieces(&dir).iter().all(|piece| piece.path.is_file()).then_some(manifest)
    }

    /// An error when a later program wrote what is said of the model with this digest: nobody here may use it,
    /// and nobody here may replace it.
    pub(crate) fn refuse_later(&self, sha256: &str) -> Result<(), FetchError> {
        version::refuse_later(&self.dir(sha256).join(MANIFEST))
    }

    /// Where the files of the model with this digest are.
    pub(crate) fn dir(&self, sha256: &str) -> PathBuf {
        self.models.join(sha256)
    }

    /// The digests of everything that was fetched.
    pub(crate) fn digests(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.models).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| is_digest(name))
            .collect();
        names.sort();
        names
    }

    /// Gives verified downloads their final names, the manifest first: a model of which a file is missing
    /// is not found. `targets` are in the order of `ready`.
    pub(crate) fn publish(
        &self,
        ready: Vec<Ready>,
        targets: &[Target],
        commit: Option<&str>,
        reference: &str,
        trust: Trust,
    ) -> Result<Entry, FetchError> {
        let sha256 = digest_of(&ready);
        self.refuse_later(&sha256)?;
        let dir = self.dir(&sha256);
        let parts: Vec<Part> = targets
            .iter()
            .zip(&ready)
            .map(|(target, ready)| Part {
                file: target.name.clone(),
                sha256: ready.sha256(),
                size_bytes: ready.size(),
            })
            .collect();
        let manifest = Manifest {
            schema_version: version::VERSION,
            reference: reference.to_owned(),
            url: targets.first().map(|target| target.url.to_string()).unwrap_or_default(),
            commit: commit.map(str::to_owned),
            file: targets.first().map(|target| target.name.clone()).unwrap_or_default(),
            sha256: sha256.clone(),
            size_bytes: parts.iter().map(|part| part.size_bytes).sum(),
            trust,
            fetched_at_unix_s: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs()),
            parts: if parts.len() > 1 { parts } else { Vec::new() },
        };
        write_json(&dir.join(MANIFEST), &manifest, Disk::Soon)?;
        let pieces = manifest.pieces(&dir);
        for (ready, piece) in ready.into_iter().zip(&pieces) {
            if let Ready::Fetched(file) = ready {
                file.rename(&piece.path)?;
            }
        }
        let size = manifest.size_bytes;
        Ok(Entry::of(pieces).unwrap_or(Entry { path: dir, sha256, size, parts: Vec::new() }))
    }

    /// Takes the lock of `key`; `on_wait` is called once if someone else holds it.
    pub(crate) fn lock(&self, key: &str, on_wait: &dyn Fn(), cancel: &Cancel) -> Result<Lock, FetchError> {
        let dir = self.models.join(".partial");
        std::fs::create_dir_all(&dir).map_err(local("create", &dir))?;
        let path = dir.join(format!("{key}.lock"));
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(local("lock", &path))?;
        let mut waited = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Lock(file)),
                Err(TryLockError::Error(source)) => return Err(local("lock", &path)(source)),
                Err(TryLockError::WouldBlock) if cancel.is_cancelled() => return Err(FetchError::Cancelled),
                Err(TryLockError::WouldBlock) => {}
            }
            if !waited {
                on_wait();
                waited = true;
            }
            std::thread::sleep(RETRY);
        }
    }

    /// The lock of `key` if nobody holds it.
    pub(crate) fn try_lock(&self, key: &str) -> Option<Lock> {
        let path = self.models.join(".partial").join(format!("{key}.lock"));
        let file = File::options().create(true).truncate(false).write(true).open(path).ok()?;
        file.try_lock().ok().map(|()| Lock(file))
    }

    fn index(&self, reference: &str) -> PathBuf {
        self.models.join("index").join(format!("{}.json", key(reference)))
    }
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// When what is written has to be on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disk {
    /// Before anything else happens.
    Now,
    /// When the system writes it: lost, it costs a download.
    Soon,
}

fn write_json(path: &Path, value: &impl Serialize, reaches: Disk) -> Result<(), FetchError> {
    let write = || -> std::io::Result<()> {
        let dir = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(dir)?;
        let mut temp = tempfile::NamedTempFile::new_in(dir)?;
        temp.write_all(&serde_json::to_vec_pretty(value)?)?;
        if reaches == Disk::Now {
            temp.as_file().sync_all()?;
        }
        temp.persist(path).map(drop).map_err(|e| e.error)
    };
    write().map_err(local("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_from_a_source_leads_out_of_the_store() {
        for (remote, name) in [
            ("dir/a.gguf", "a.gguf"),
            ("..", "model.gguf"),
            ("", "model.gguf"),
            (".hidden.gguf", "hidden.gguf"),
            ("a b%2f\u{e4}.gguf", "a_b_2f_.gguf"),
            ("download", "download.gguf"),
            ("d/a b-00001-of-00002.gguf", "a_b-00001-of-00002.gguf"),
            ("..-00002-of-00002.gguf", "model-00002-of-00002.gguf"),
        ] {
            assert_eq!(local_name(remote), name, "{remote}");
        }
        let long = format!("{}-00001-of-00002.gguf", "x".repeat(500));
        assert_eq!(local_name(&long), format!("{}-00001-of-00002.gguf", "x".repeat(120)));
        assert!(Store::new(Path::new("/m")).find("../../etc").is_none());
    }
}
