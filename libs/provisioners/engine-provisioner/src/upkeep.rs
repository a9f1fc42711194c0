//! Looking after the engines that are there: what there is, and whether it is still what was built. What may go
//! is decided in `gc`. It builds and hands out nothing.

mod gc;
mod materials;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use provisioners_model_provisioner::{Cancel, DigestError, InUse, Unfinished, sha256_file};
use serde::Serialize;

use crate::error::EnsureError;
use crate::manifest::Manifest;
use crate::source;
use crate::store::Store;

pub use gc::{GcRules, Removal};

/// The engines of one cache, for people and their tools.
#[derive(Debug, Clone)]
pub struct EngineStore {
    store: Store,
    dir: PathBuf,
    sources: PathBuf,
}

/// One engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EngineEntry {
    /// SHA-256 (hex) over everything that went into it.
    pub digest: String,
    /// As a `PreparedEngine` names it; `unreadable` where the manifest is.
    pub version: String,
    /// Where it came from.
    pub source: String,
    /// The binary.
    pub binary: PathBuf,
    /// Of the binary and of the libraries that came with it.
    pub bytes: u64,
    /// When it was built (or first seen), milliseconds since 1970.
    pub built_unix_ms: u64,
    /// When it was last handed out; absent when it never was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_used_unix_ms: Option<u64>,
    /// A process runs it.
    pub in_use: bool,
    /// As SPDX names it, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
}

/// Whether an engine is still what was built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EngineVerdict {
    /// Which.
    pub digest: String,
    /// Its version.
    pub version: String,
    /// What is wrong with it; absent: nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// A build that is not finished, and goes on where it stopped when somebody asks for its engine again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnfinishedBuild {
    /// The digest that its engine will have.
    pub digest: String,
    /// Where its objects are.
    pub path: PathBuf,
    /// Room that they take.
    pub bytes: u64,
    /// When something was last built there, milliseconds since 1970.
    pub last_written_unix_ms: u64,
    /// Somebody builds it at the moment.
    pub in_use: bool,
}

impl EngineStore {
    /// The engines of `cache` (`paths.cache`).
    #[must_use]
    pub fn new(cache: &Path) -> Self {
        Self { store: Store::new(cache), dir: cache.join("engines"), sources: cache.join("sources") }
    }

    /// All of them, the last used first.
    #[must_use]
    pub fn list(&self) -> Vec<EngineEntry> {
        let in_use = InUse::below(&self.dir);
        let mut all: Vec<_> =
            self.store.digests().into_iter().map(|digest| self.entry(digest, &in_use)).collect();
        all.sort_by_key(|entry| {
            std::cmp::Reverse(entry.last_used_unix_ms.unwrap_or(0).max(entry.built_unix_ms))
        });
        all
    }

    fn entry(&self, digest: String, in_use: &InUse) -> EngineEntry {
        let last_used_unix_ms = self.store.last_used(&digest).map(unix_ms);
        let dir = self.store.engine_dir(&digest);
        match self.store.manifest(&digest) {
            Some(manifest) => EngineEntry {
                version: manifest.version(),
                source: source::describe(&manifest.source),
                in_use: in_use.has(&dir),
                bytes: manifest.binary_bytes + libraries_bytes(&self.binary(&manifest), &manifest),
                built_unix_ms: manifest.built_unix_ms,
                last_used_unix_ms,
                binary: self.binary(&manifest),
                licence: manifest.licence,
                digest,
            },
            None => EngineEntry {
                version: "unreadable".to_owned(),
                source: String::new(),
                binary: self.store.binary(&digest),
                bytes: size_below(&dir),
                built_unix_ms: 0,
                last_used_unix_ms,
                in_use: in_use.has(&dir),
                licence: None,
                digest,
            },
        }
    }

    fn binary(&self, manifest: &Manifest) -> PathBuf {
        manifest.external.clone().unwrap_or_else(|| self.store.binary(&manifest.engine_digest))
    }

    /// Reads every binary again and compares it with what was recorded when it was built.
    ///
    /// # Errors
    /// [`EnsureError::Cancelled`] alone; what is wrong with an engine is in its verdict.
    pub fn verify(&self, cancel: &Cancel) -> Result<Vec<EngineVerdict>, EnsureError> {
        self.store.digests().into_iter().map(|digest| self.verdict(digest, cancel)).collect()
    }

    fn verdict(&self, digest: String, cancel: &Cancel) -> Result<EngineVerdict, EnsureError> {
        let Some(manifest) = self.store.manifest(&digest) else {
            let problem = Some("its manifest is not there or cannot be read".to_owned());
            return Ok(EngineVerdict { digest, version: "unreadable".to_owned(), problem });
        };
        let binary = self.binary(&manifest);
        let problem = match sha256_file(&binary, &mut |_| (), cancel) {
            Ok(actual) if actual == manifest.binary_sha256 => None,
            Ok(actual) => Some(format!(
                "{} has SHA-256 {actual}, recorded is {}; it is rebuilt when it is next needed",
                binary.display(),
                manifest.binary_sha256
            )),
            Err(DigestError::Cancelled { .. }) => return Err(EnsureError::Cancelled),
            Err(DigestError::Read { path, source }) => {
                Some(format!("{} cannot be read: {source}", path.display()))
            }
        };
        let libraries = manifest.libraries.iter().map(|(name, sha256)| (binary.with_file_name(name), sha256));
        let mut problem = problem;
        for (library, recorded) in libraries {
            let actual = sha256_file(&library, &mut |_| (), cancel);
            if matches!(actual, Err(DigestError::Cancelled { .. })) {
                return Err(EnsureError::Cancelled);
            }
            if problem.is_none() && actual.ok().as_ref() != Some(recorded) {
                problem = Some(format!("{} is not the library that came with it", library.display()));
            }
        }
        Ok(EngineVerdict { digest, version: manifest.version(), problem })
    }

    /// Builds that are not finished, the oldest first.
    #[must_use]
    pub fn unfinished_builds(&self) -> Vec<UnfinishedBuild> {
        let entries = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let mut all: Vec<_> = entries
            .filter_map(|entry| {
                let digest = entry.file_name().to_str()?.strip_prefix(".build-")?.to_owned();
                let written = entry.metadata().and_then(|meta| meta.modified()).ok()?;
                Some(UnfinishedBuild {
                    path: entry.path(),
                    bytes: size_below(&entry.path()),
                    last_written_unix_ms: unix_ms(written),
                    in_use: self.store.try_lock(&digest).is_none(),
                    digest,
                })
            })
            .collect();
        all.sort_by_key(|build| build.last_written_unix_ms);
        all
    }

    fn cache(&self) -> PathBuf {
        self.dir.parent().unwrap_or(&self.dir).to_owned()
    }

    /// Sources whose download broke off, the oldest first.
    #[must_use]
    pub fn unfinished_sources(&self) -> Vec<Unfinished> {
        Unfinished::below(&self.sources)
    }
}

fn libraries_bytes(binary: &Path, manifest: &Manifest) -> u64 {
    let each = manifest.libraries.keys().map(|name| binary.with_file_name(name).metadata());
    each.filter_map(Result::ok).map(|meta| meta.len()).sum()
}

fn age(at: SystemTime) -> Duration {
    SystemTime::now().duration_since(at).unwrap_or_default()
}

fn unix_ms(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

pub(crate) fn size_below(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => size_below(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}
