//! The models that are here, and how long they stay: what there is, whether it is still what was
//! fetched, which are pinned, and who goes first when there is no room.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use wire::CatalogModel;

use crate::digest::{DigestError, sha256_file};
use crate::provenance::{self, Happened, unix_ms};
use crate::remote::{Manifest, Piece, Store, Trust, Unfinished};
use crate::{Cancel, InUse, builtin, gguf};

/// The models of one cache.
#[derive(Debug, Clone)]
pub struct Catalog {
    pub(crate) models: PathBuf,
    pub(crate) store: Store,
}

/// What a digest may be shortened to.
const LEAST_DIGITS: usize = 8;

fn not_found(digest: &str) -> String {
    match digest.len() < LEAST_DIGITS {
        true => {
            format!("{digest:?} does not say which model: write {LEAST_DIGITS} digits of its digest at least")
        }
        false => format!("no model's digest begins with {digest:?}"),
    }
}

/// Why the catalog does not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// There is no such model, or too few digits to say which.
    #[error("{}; the catalog has: {known}", not_found(digest))]
    NotFound {
        /// As asked for.
        digest: String,
        /// The digests there are, shortened.
        known: String,
    },
    /// It must not go.
    #[error("the model {digest} stays: {reason}")]
    Kept {
        /// Which.
        digest: String,
        /// Why.
        reason: &'static str,
    },
    /// Without these models there is still no room.
    #[error(
        "{needed_mib} MiB do not fit into the quota of {quota_mib} MiB for models: {held_mib} MiB are held by models \
         that are pinned, run, or were just used; raise `models.quota_gib`, or unpin or remove one"
    )]
    Full {
        /// What is to come.
        needed_mib: u64,
        /// What may be used.
        quota_mib: u64,
        /// What cannot go.
        held_mib: u64,
    },
    /// The file cannot be read or removed.
    #[error("cannot {action} {path}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// What was to be taken in is no whole model.
    #[error("what was unpacked in {path} is no model to take in: {problem}")]
    NotAModel {
        /// Where it is.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// Someone asked to stop.
    #[error("interrupted")]
    Cancelled,
}

/// A model that was staged this recently may be about to be loaded.
const JUST_USED: Duration = Duration::from_secs(600);

/// One model on disk.
struct Held {
    digest: String,
    /// The file, or the first of a split set.
    path: PathBuf,
    /// Absent for a built-in model.
    manifest: Option<Manifest>,
}

impl Held {
    fn files(&self) -> Vec<PathBuf> {
        wire::split::files(&self.path)
    }

    fn size(&self) -> u64 {
        self.files().iter().map(|file| file.metadata().map_or(0, |meta| meta.len())).sum()
    }
}

impl Catalog {
    /// The models of `cache` (`paths.cache`).
    #[must_use]
    pub fn new(cache: &Path) -> Self {
        let models = cache.join("models");
        Self { store: Store::new(&models), models }
    }

    /// All of them, the last used first.
    #[must_use]
    pub fn list(&self) -> Vec<CatalogModel> {
        let in_use = InUse::below(&self.models);
        let mut all: Vec<_> = self.held().iter().map(|held| self.describe(held, &in_use)).collect();
        all.sort_by_key(|model| {
            std::cmp::Reverse((model.last_used_unix_ms.or(model.fetched_unix_ms), model.digest.clone()))
        });
        all
    }

    fn held(&self) -> Vec<Held> {
        let fetched = self.store.digests().into_iter().filter_map(|digest| {
            let manifest = self.store.held(&digest)?;
            let path = manifest.pieces(&self.store.dir(&digest)).into_iter().next()?.path;
            Some(Held { digest, path, manifest: Some(manifest) })
        });
        let builtin = builtin::all().into_iter().filter_map(|model| {
            let digest = model.digest().to_owned();
            let path = self.models.join("builtin").join(&digest).join(format!("{}.gguf", model.name));
            path.is_file().then_some(Held { digest, path, manifest: None })
        });
        fetched.chain(builtin).collect()
    }

    fn describe(&self, held: &Held, in_use: &InUse) -> CatalogModel {
        let header = gguf::read_header(&held.path);
        let stem = held.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let problem = header.as_ref().err().map(ToString::to_string);
        let header = header.ok();
        let name = header.as_ref().and_then(|header| header.name.clone());
        let unknown = || "unknown".to_owned();
        let manifest = held.manifest.as_ref();
        CatalogModel {
            digest: held.digest.clone(),
            source: manifest.map_or_else(|| format!("builtin:{stem}"), |m| m.reference.clone()),
            name: name.unwrap_or(stem),
            verified_by_source: manifest.is_none_or(|manifest| manifest.trust == Trust::Verified),
            size_bytes: held.size(),
            files: u32::try_from(wire::split::files(&held.path).len()).unwrap_or(u32::MAX),
            ctx_max: header.as_ref().and_then(|header| header.ctx_max),
            quantisation: header.as_ref().map_or_else(unknown, |header| header.quantisation.clone()),
            architecture: header.as_ref().map_or_else(unknown, |header| header.architecture.clone()),
            fetched_unix_ms: manifest.map(|manifest| manifest.fetched_at_unix_s.saturating_mul(1000)),
            last_used_unix_ms: last_used(&held.path).map(unix_ms),
            pinned: pin_of(&held.path).exists(),
            in_use: held.files().iter().any(|file| in_use.has(file)),
            problem,
        }
    }

    /// The one whose digest begins with `digest` (at least eight digits).
    pub fn find(&self, digest: &str) -> Result<CatalogModel, CatalogError> {
        let held = self.one(digest)?;
        Ok(self.describe(&held, &InUse::below(&self.models)))
    }

    fn one(&self, digest: &str) -> Result<Held, CatalogError> {
        let mut held = self.held();
        let mut known: Vec<String> = held.iter().map(|held| held.digest.chars().take(12).collect()).collect();
        if known.is_empty() {
            known.push("no model".to_owned());
        }
        let wanted = digest.to_ascii_lowercase();
        held.retain(|held| wanted.len() >= LEAST_DIGITS && held.digest.starts_with(&wanted));
        match held.pop() {
            Some(one) if held.is_empty() => Ok(one),
            _ => Err(CatalogError::NotFound { digest: digest.to_owned(), known: known.join(", ") }),
        }
    }

    /// Reads the file again; what is wrong with it, if anything.
    pub fn verify(&self, digest: &str, cancel: &Cancel) -> Result<Option<String>, CatalogError> {
        let held = self.one(digest)?;
        let pieces = match &held.manifest {
            Some(manifest) => manifest.pieces(&self.store.dir(&held.digest)),
            None => {
                let size = held.size();
                vec![Piece { path: held.path.clone(), sha256: held.digest.clone(), size }]
            }
        };
        for Piece { path, sha256, .. } in pieces {
            match sha256_file(&path, &mut |_| (), cancel) {
                Ok(actual) if actual == sha256 => {}
                Ok(actual) => {
                    return Ok(Some(format!(
                        "{} has SHA-256 {actual}; it was changed or damaged and is fetched again when it is next needed",
                        path.display()
                    )));
                }
                Err(DigestError::Cancelled { .. }) => return Err(CatalogError::Cancelled),
                Err(DigestError::Read { path, source }) => {
                    return Err(CatalogError::Io { action: "read", path, source });
                }
            }
        }
        Ok(gguf::read_header(&held.path).err().map(|error| error.to_string()))
    }

    /// Pins a model, so that it is never evicted, or lets it go again.
    pub fn pin(&self, digest: &str, pinned: bool) -> Result<(), CatalogError> {
        let path = pin_of(&self.one(digest)?.path);
        let done = match pinned {
            true => std::fs::write(&path, ""),
            false if path.exists() => std::fs::remove_file(&path),
            false => Ok(()),
        };
        done.map_err(|source| CatalogError::Io { action: "write", path, source })
    }

    /// Removes a model that is neither pinned nor in use; the bytes that were freed.
    pub fn remove(&self, digest: &str) -> Result<u64, CatalogError> {
        let held = self.one(digest)?;
        self.drop_model(&held, Happened::Removed, Duration::ZERO)
    }

    fn drop_model(&self, held: &Held, event: Happened, spare: Duration) -> Result<u64, CatalogError> {
        let kept = |reason| Err(CatalogError::Kept { digest: held.digest.clone(), reason });
        let Some(manifest) = &held.manifest else { return kept("it ships with the program") };
        if pin_of(&held.path).exists() {
            return kept("it is pinned");
        }
        let in_use = InUse::below(&self.models);
        if held.files().iter().any(|file| in_use.has(file)) {
            return kept("a running process uses it");
        } else if last_used(&held.path).is_some_and(|at| age(at) < spare) {
            return kept("it was used in the last ten minutes");
        }
        let (dir, size) = (self.models.join(&held.digest), manifest.size_bytes);
        let gone = self.models.join(format!(".old-{}", held.digest));
        let take = || -> std::io::Result<()> {
            if gone.exists() {
                std::fs::remove_dir_all(&gone)?;
            }
            // Gone from the store in one step, whatever happens to the files after it.
            std::fs::rename(&dir, &gone)?;
            std::fs::remove_dir_all(&gone)
        };
        take().map_err(|source| CatalogError::Io { action: "remove", path: dir, source })?;
        let from = Some(manifest.url.as_str());
        provenance::note(&self.models, event, (&held.digest, size), &manifest.reference, from, None);
        Ok(size)
    }

    /// Downloads that broke off, the oldest first.
    #[must_use]
    pub fn unfinished(&self) -> Vec<Unfinished> {
        Unfinished::below(&self.models)
    }

    /// Removes downloads that nobody has continued for `age`; what went.
    pub fn collect_unfinished(&self, age: Duration) -> Result<Vec<Unfinished>, CatalogError> {
        Unfinished::collect(&self.models, age).map_err(|(path, source)| CatalogError::Io {
            action: "remove",
            path,
            source,
        })
    }

    /// Makes room for `needed` more bytes within `quota`, the least recently used first, never `keep`.
    /// Returns the models that went.
    pub fn make_room(
        &self,
        quota: u64,
        needed: u64,
        keep: Option<&str>,
    ) -> Result<Vec<String>, CatalogError> {
        let mut held = self.held();
        held.retain(|held| held.manifest.is_some());
        let mut total: u64 = held.iter().map(Held::size).sum();
        held.sort_by_key(|held| last_used(&held.path).or_else(|| modified(&held.path)));
        let mut gone = Vec::new();
        for one in held.iter().filter(|held| keep != Some(held.digest.as_str())) {
            if total.saturating_add(needed) <= quota {
                break;
            }
            match self.drop_model(one, Happened::Evicted, JUST_USED) {
                Ok(freed) => {
                    total = total.saturating_sub(freed);
                    gone.push(one.digest.clone());
                }
                Err(CatalogError::Kept { .. }) => {}
                Err(other) => return Err(other),
            }
        }
        match total.saturating_add(needed) <= quota {
            true => Ok(gone),
            false => Err(CatalogError::Full {
                needed_mib: needed >> 20,
                quota_mib: quota >> 20,
                held_mib: total >> 20,
            }),
        }
    }
}

/// Notes that the model at `path` is used now. Only where the file is ours.
pub(crate) fn touch(models: &Path, path: &Path) {
    if !path.starts_with(models) {
        return;
    }
    let mark = path.with_file_name("last-used");
    let file = std::fs::File::options().create(true).truncate(false).write(true).open(&mark);
    if let Err(error) = file.and_then(|file| file.set_modified(SystemTime::now())) {
        tracing::debug!(path = %mark.display(), %error, "the use of a model is not noted");
    }
}

fn last_used(model: &Path) -> Option<SystemTime> {
    modified(&model.with_file_name("last-used"))
}

fn modified(path: &Path) -> Option<SystemTime> {
    path.metadata().and_then(|meta| meta.modified()).ok()
}

fn pin_of(model: &Path) -> PathBuf {
    model.with_file_name("pinned")
}

fn age(at: SystemTime) -> Duration {
    SystemTime::now().duration_since(at).unwrap_or_default()
}
