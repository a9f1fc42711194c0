//! Looking after the engines that are there: what there is, whether it is still what was built, and
//! what may go. It builds and hands out nothing.

mod materials;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use provisioners_model_provisioner::{Cancel, DigestError, InUse, Unfinished, sha256_file};
use serde::Serialize;

use crate::error::EnsureError;
use crate::manifest::Manifest;
use crate::source;
use crate::store::Store;

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

/// What became of one engine, or of the rest of a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Removal {
    /// Which: a version, or the directory of an unfinished build.
    pub what: String,
    /// Whether it is gone, or would be.
    pub removed: bool,
    /// Why it is gone or still there.
    pub reason: String,
    /// Room that was made.
    pub bytes: u64,
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

/// What may go.
#[derive(Debug, Clone, Copy)]
pub struct GcRules {
    /// So many of the last used engines stay, and what they were built from.
    pub keep: usize,
    /// What was begun and not finished goes when nobody has continued it for so long.
    pub unfinished: Duration,
    /// Nothing is removed, and it is said what would be.
    pub dry_run: bool,
}

impl GcRules {
    /// Removes what nobody continued for a week.
    #[must_use]
    pub fn keeping(keep: usize) -> Self {
        Self { keep, unfinished: ABANDONED, dry_run: false }
    }

    fn act(&self, remove: impl FnOnce() -> std::io::Result<()>) -> std::io::Result<()> {
        if self.dry_run { Ok(()) } else { remove() }
    }
}

/// An engine that was handed out this recently may be about to start.
const JUST_ISSUED: Duration = Duration::from_secs(600);
/// An unfinished build is continued when somebody tries again; after this nobody will.
const ABANDONED: Duration = Duration::from_secs(7 * 24 * 3600);

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

    /// Removes all but the last used, and never one that runs, that is being built or that was
    /// handed out in the last ten minutes; also what is known of binaries that are not there any more, which do
    /// not count, what builds left that nobody continued, and the sources and tools that neither an engine that
    /// stays was built with nor an unfinished build goes on with.
    #[must_use]
    pub fn gc(&self, rules: &GcRules) -> Vec<Removal> {
        let (here, gone): (Vec<_>, Vec<_>) = self.list().into_iter().partition(|entry| entry.binary.exists());
        let mut out: Vec<_> = here
            .iter()
            .enumerate()
            .map(|(rank, entry)| self.judge(entry, rank < rules.keep, rules))
            .collect();
        let stay = here.iter().zip(&out).filter(|(_, removal)| !removal.removed);
        let stay: Vec<String> = stay.map(|(entry, _)| entry.digest.clone()).collect();
        out.extend(gone.iter().map(|entry| self.forget(entry, rules)));
        let builds = self.abandoned(rules);
        let finished = |build: &UnfinishedBuild| {
            builds.iter().any(|removal| removal.removed && build.path.ends_with(&removal.what))
        };
        let goes_on = self.unfinished_builds().iter().any(|build| !finished(build));
        out.extend(builds);
        out.extend(self.abandoned_sources(rules));
        out.extend(materials::collect(&self.store, &self.cache(), &stay, goes_on, rules.dry_run));
        out
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

    fn abandoned_sources(&self, rules: &GcRules) -> Vec<Removal> {
        let reason = format!("a download that nobody continued for {}", days(rules.unfinished));
        let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let idle = |one: &Unfinished| {
            let at = UNIX_EPOCH + Duration::from_millis(one.last_written_unix_ms);
            !one.in_use && age(at) >= rules.unfinished
        };
        let collected = match rules.dry_run {
            true => Ok(self.unfinished_sources().into_iter().filter(idle).collect()),
            false => Unfinished::collect(&self.sources, rules.unfinished),
        };
        let gone: Vec<Unfinished> = match collected {
            Ok(gone) => gone,
            Err((path, error)) => {
                let reason = format!("it cannot be removed: {error}");
                return vec![Removal { what: name(&path), removed: false, reason, bytes: 0 }];
            }
        };
        let mut out: Vec<Removal> = gone
            .into_iter()
            .map(|one| Removal { what: one.url, removed: true, reason: reason.clone(), bytes: one.bytes })
            .collect();
        out.extend(left_below(&self.sources, &[".new-"], "a source that was not unpacked to its end", rules));
        // Beside the stores, where bundles are unpacked and tried.
        out.extend(left_below(
            &self.cache(),
            &[".import-", ".export-"],
            "a bundle that was not taken in or packed to its end",
            rules,
        ));
        out
    }

    /// Removes an engine without a binary.
    fn forget(&self, entry: &EngineEntry, rules: &GcRules) -> Removal {
        let reason = format!("its binary {} is not there any more", entry.binary.display());
        let bytes = size_below(&self.store.engine_dir(&entry.digest));
        let removal =
            |removed, reason, bytes| Removal { what: entry.version.clone(), removed, reason, bytes };
        let Some(_lock) = self.store.try_lock(&entry.digest) else {
            return removal(false, "it is being built".to_owned(), 0);
        };
        match rules.act(|| self.store.remove(&entry.digest)) {
            Ok(()) => removal(true, reason, bytes),
            Err(error) => removal(false, format!("it cannot be removed: {error}"), 0),
        }
    }

    fn judge(&self, entry: &EngineEntry, among_the_kept: bool, rules: &GcRules) -> Removal {
        let kept = |reason: &str| Removal {
            what: entry.version.clone(),
            removed: false,
            reason: reason.to_owned(),
            bytes: 0,
        };
        let just_issued = self.store.last_used(&entry.digest).is_some_and(|at| age(at) < JUST_ISSUED);
        // Looked at again: an engine may have started since the list was made.
        let dir = self.store.engine_dir(&entry.digest);
        if entry.in_use || InUse::below(&dir).has(&dir) {
            return kept("a process runs it");
        } else if among_the_kept {
            return kept("among the last used");
        } else if just_issued {
            return kept("it was handed out in the last ten minutes");
        }
        let Some(_lock) = self.store.try_lock(&entry.digest) else { return kept("it is being built") };
        let bytes = size_below(&dir);
        match rules.act(|| self.store.remove(&entry.digest)) {
            Ok(()) => Removal { removed: true, bytes, ..kept("not among the last used") },
            Err(error) => kept(&format!("it cannot be removed: {error}")),
        }
    }

    fn abandoned(&self, rules: &GcRules) -> Vec<Removal> {
        let entries = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        entries.filter_map(|entry| self.abandoned_build(&entry, rules)).collect()
    }

    fn abandoned_build(&self, entry: &std::fs::DirEntry, rules: &GcRules) -> Option<Removal> {
        let name = entry.file_name().into_string().ok()?;
        let digest = [".build-", ".old-", ".new-"].iter().find_map(|prefix| name.strip_prefix(prefix))?;
        let modified = entry.metadata().and_then(|meta| meta.modified()).ok()?;
        let _lock = self.store.try_lock(digest).filter(|_| age(modified) >= rules.unfinished)?;
        let bytes = size_below(&entry.path());
        let removed = rules.act(|| std::fs::remove_dir_all(entry.path())).is_ok();
        let reason = format!("an unfinished build that nobody continued for {}", days(rules.unfinished));
        Some(Removal { what: name, removed, reason, bytes })
    }
}

/// Removes directories that a program which was killed left in `dir`; one that lives is done within minutes.
fn left_below(dir: &Path, prefixes: &[&str], reason: &str, rules: &GcRules) -> Vec<Removal> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let old = entry.metadata().and_then(|meta| meta.modified()).is_ok_and(|at| age(at) > ABANDONED);
        let what = entry.file_name().to_string_lossy().into_owned();
        if old && prefixes.iter().any(|prefix| what.starts_with(prefix)) {
            let bytes = size_below(&entry.path());
            let removed = rules.act(|| std::fs::remove_dir_all(entry.path())).is_ok();
            out.push(Removal { what, removed, reason: reason.to_owned(), bytes });
        }
    }
    out
}

fn days(length: Duration) -> String {
    match length.as_secs() / (24 * 3600) {
        7 => "a week".to_owned(),
        days => format!("{days} days"),
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
