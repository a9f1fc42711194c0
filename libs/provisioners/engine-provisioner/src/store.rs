//! The engines of the cache: `engines/<digest>/{bin/llama-server, manifest.json, sbom.cdx.json}`, put
//! there whole by a rename, and the lock files that make two provisioners build once. A `path` engine
//! has a manifest and no binary here.

use std::fs::{File, TryLockError};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use provisioners_model_provisioner::Cancel;

use crate::error::EnsureError;
use crate::manifest::{Manifest, SCHEMA};

const MANIFEST: &str = "manifest.json";
const SBOM: &str = "sbom.cdx.json";
const LAST_USED: &str = "last-used";

/// The engine store of one cache directory.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    dir: PathBuf,
}

impl Store {
    pub(crate) fn new(cache: &Path) -> Self {
        Self { dir: cache.join("engines") }
    }

    pub(crate) fn engine_dir(&self, digest: &str) -> PathBuf {
        self.dir.join(digest)
    }

    pub(crate) fn binary(&self, digest: &str) -> PathBuf {
        self.engine_dir(digest).join("bin/llama-server")
    }

    /// Where a build goes on; kept when it is interrupted.
    pub(crate) fn build_dir(&self, digest: &str) -> PathBuf {
        self.dir.join(format!(".build-{digest}"))
    }

    /// The engine, if it is there and looks as it was left. Cheap: size only, not the digest.
    pub(crate) fn find(&self, digest: &str) -> Option<Manifest> {
        let manifest = self.manifest(digest)?;
        let size = self.binary(digest).metadata().ok()?.len();
        (size == manifest.binary_bytes).then_some(manifest)
    }

    /// What is written about an engine, whether its binary is there or not.
    pub(crate) fn manifest(&self, digest: &str) -> Option<Manifest> {
        let text = std::fs::read(self.engine_dir(digest).join(MANIFEST)).ok()?;
        let manifest: Manifest = serde_json::from_slice(&text).ok()?;
        (manifest.engine_digest == digest && manifest.schema_version <= SCHEMA).then_some(manifest)
    }

    /// An error when a later program wrote what is said of this engine: it is neither guessed at nor replaced.
    pub(crate) fn refuse_later(&self, digest: &str) -> Result<(), EnsureError> {
        #[derive(serde::Deserialize)]
        struct Versioned {
            schema_version: u32,
        }
        let path = self.engine_dir(digest).join(MANIFEST);
        match serde_json::from_slice::<Versioned>(&std::fs::read(&path).unwrap_or_default()) {
            Ok(Versioned { schema_version: version }) if version > SCHEMA => {
                let problem = format!(
                    "a later version of this program wrote it (format {version}, this one reads up to {SCHEMA}): use \
                     that version, or another cache (LLAMA_ORCH_CACHE)"
                );
                Err(EnsureError::Cache { action: "read", path, source: std::io::Error::other(problem) })
            }
            _ => Ok(()),
        }
    }

    /// Writes or replaces the manifest alone: of an engine outside, or of one that was not yet surveyed.
    pub(crate) fn note(&self, manifest: &Manifest) -> Result<(), EnsureError> {
        let dir = self.engine_dir(&manifest.engine_digest);
        let put = || -> std::io::Result<()> {
            std::fs::create_dir_all(&dir)?;
            let mut temp = tempfile::NamedTempFile::new_in(&dir)?;
            temp.write_all(&serde_json::to_vec_pretty(manifest)?)?;
            temp.as_file().sync_all()?;
            temp.persist(dir.join(MANIFEST)).map(drop).map_err(|e| e.error)
        };
        put().map_err(|source| EnsureError::Cache {
            action: "write the manifest in",
            path: dir.clone(),
            source,
        })
    }

    /// Notes that the engine is used now. Not being able to only makes it look older than it is.
    pub(crate) fn touch(&self, digest: &str) {
        let path = self.engine_dir(digest).join(LAST_USED);
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        if let Err(error) = file.and_then(|file| file.set_modified(SystemTime::now())) {
            tracing::debug!(path = %path.display(), %error, "the use of an engine is not noted");
        }
    }

    /// When the engine was last handed out.
    pub(crate) fn last_used(&self, digest: &str) -> Option<SystemTime> {
        self.engine_dir(digest).join(LAST_USED).metadata().and_then(|meta| meta.modified()).ok()
    }

    /// The digests of everything that is there, whole or not.
    pub(crate) fn digests(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let hex = |name: &String| name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit());
        let mut digests: Vec<String> = names.filter(hex).collect();
        digests.sort();
        digests
    }

    /// Copies a built binary, its libraries and `licences` (name and file), its manifest and its bill of materials
    /// into place, whole or not at all.
    pub(crate) fn publish(
        &self,
        built: &Path,
        manifest: &Manifest,
        sbom: &serde_json::Value,
        licences: &[(String, PathBuf)],
    ) -> Result<(), EnsureError> {
        let target = self.engine_dir(&manifest.engine_digest);
        let put = || -> std::io::Result<()> {
            let temp = tempfile::Builder::new().prefix(".new-").tempdir_in(&self.dir)?;
            std::fs::create_dir(temp.path().join("bin"))?;
            let binary = temp.path().join("bin/llama-server");
            std::fs::copy(built, &binary)?;
            File::open(&binary)?.sync_all()?;
            for library in manifest.libraries.keys() {
                // Through a link to its file: nothing here leads anywhere else.
                let copy = binary.with_file_name(library);
                std::fs::copy(built.with_file_name(library), &copy)?;
                File::open(&copy)?.sync_all()?;
            }
            let mut texts = vec![
                (MANIFEST.to_owned(), serde_json::to_vec_pretty(manifest)?),
                (SBOM.to_owned(), serde_json::to_vec_pretty(sbom)?),
            ];
            for (name, licence) in licences {
                texts.push((name.clone(), std::fs::read(licence)?));
            }
            for (name, text) in texts {
                let path = temp.path().join(name);
                std::fs::write(&path, text)?;
                File::open(&path)?.sync_all()?;
            }
            if target.exists() {
                // Only a damaged one is rebuilt.
                std::fs::remove_dir_all(&target)?;
            }
            // A temporary directory is private to its maker; a cache may be shared.
            std::fs::set_permissions(temp.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
            std::fs::rename(temp.keep(), &target)?;
            File::open(&self.dir)?.sync_all()
        };
        put().map_err(|source| EnsureError::Cache {
            action: "store the engine in",
            path: target.clone(),
            source,
        })
    }

    /// Moves an engine that was unpacked in `dir` into place; the same that is there and whole stays.
    pub(crate) fn take_in(
        &self,
        dir: &Path,
        manifest: &Manifest,
        cancel: &Cancel,
    ) -> Result<(), EnsureError> {
        let target = self.engine_dir(&manifest.engine_digest);
        let _one = self.lock(&manifest.engine_digest, &|| (), cancel)?;
        self.refuse_later(&manifest.engine_digest)?;
        // What was a file of another machine has the digest of its binary, whatever its libraries are.
        let same = |there: Manifest| there.external.is_none() && there.libraries == manifest.libraries;
        if self.find(&manifest.engine_digest).is_some_and(same) {
            return Ok(());
        }
        let put = || -> std::io::Result<()> {
            std::fs::write(dir.join(MANIFEST), serde_json::to_vec_pretty(manifest)?)?;
            File::open(dir.join(MANIFEST))?.sync_all()?;
            if target.exists() {
                std::fs::remove_dir_all(&target)?;
            }
            std::fs::rename(dir, &target)?;
            File::open(&self.dir)?.sync_all()
        };
        put().map_err(|source| EnsureError::Cache { action: "store the engine in", path: target, source })
    }

    /// Removes an engine; a name that begins with a dot is none while the files go.
    pub(crate) fn remove(&self, digest: &str) -> std::io::Result<()> {
        let gone = self.dir.join(format!(".old-{digest}"));
        if gone.exists() {
            std::fs::remove_dir_all(&gone)?;
        }
        std::fs::rename(self.engine_dir(digest), &gone)?;
        std::fs::remove_dir_all(&gone)
    }

    /// The lock of `digest` if nobody holds it.
    pub(crate) fn try_lock(&self, digest: &str) -> Option<Lock> {
        let path = self.dir.join(format!(".lock-{digest}"));
        let file = File::options().create(true).truncate(false).write(true).open(path).ok()?;
        file.try_lock().ok().map(|()| Lock(file))
    }

    /// Held for as long as sources and tools must stay, by however many builds.
    pub(crate) fn uses_materials(&self, cancel: &Cancel) -> Result<Lock, EnsureError> {
        take(&self.materials_lock(), &File::try_lock_shared, &|| (), cancel)
    }

    /// Nobody builds, and nobody begins to while this is held; `None` where somebody does.
    pub(crate) fn try_own_materials(&self) -> Option<Lock> {
        let file =
            File::options().create(true).truncate(false).write(true).open(self.materials_lock()).ok()?;
        file.try_lock().ok().map(|()| Lock(file))
    }

    fn materials_lock(&self) -> PathBuf {
        self.dir.join(".lock-materials")
    }

    /// The lock under which one engine is built. `on_wait` is called once if someone else holds it.
    pub(crate) fn lock(
        &self,
        digest: &str,
        on_wait: &dyn Fn(),
        cancel: &Cancel,
    ) -> Result<Lock, EnsureError> {
        lock(&self.dir.join(format!(".lock-{digest}")), on_wait, cancel)
    }
}

/// A held file lock; released when dropped, or by the system when the process dies.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "held, not read")] File);

const RETRY: Duration = Duration::from_millis(100);

/// Takes an exclusive lock on `path`, waiting until it is free or someone asks to stop.
pub(crate) fn lock(path: &Path, on_wait: &dyn Fn(), cancel: &Cancel) -> Result<Lock, EnsureError> {
    take(path, &File::try_lock, on_wait, cancel)
}

fn take(
    path: &Path,
    try_lock: &dyn Fn(&File) -> Result<(), TryLockError>,
    on_wait: &dyn Fn(),
    cancel: &Cancel,
) -> Result<Lock, EnsureError> {
    let refuse = |source| EnsureError::Cache { action: "lock", path: path.to_path_buf(), source };
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(refuse)?;
    }
    let file = File::options().create(true).truncate(false).write(true).open(path).map_err(refuse)?;
    let mut waited = false;
    loop {
        match try_lock(&file) {
            Ok(()) => return Ok(Lock(file)),
            Err(TryLockError::Error(source)) => return Err(refuse(source)),
            Err(TryLockError::WouldBlock) => {}
        }
        if !waited {
            on_wait();
            waited = true;
        }
        if cancel.is_cancelled() {
            return Err(EnsureError::Cancelled);
        }
        std::thread::sleep(RETRY);
    }
}
