//! The engines of the cache: `engines/<digest>/{bin/llama-server, manifest.json}`, put there whole by
//! a rename, and the lock files that make two provisioners build once.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use provisioners_model_provisioner::Cancel;
use serde::{Deserialize, Serialize};
use wire::config::EngineSource;

use crate::error::{Attempt, EnsureError};

/// How an engine came to be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) schema_version: u32,
    pub(crate) engine_digest: String,
    pub(crate) source: EngineSource,
    /// Sources that were tried before this one, and why they failed.
    pub(crate) attempts: Vec<Attempt>,
    /// Everything that went into the digest.
    pub(crate) inputs: serde_json::Value,
    pub(crate) cmake: String,
    pub(crate) binary_sha256: String,
    pub(crate) binary_bytes: u64,
    pub(crate) built_unix_ms: u64,
    pub(crate) build_ms: u64,
}

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
        let text = std::fs::read(self.engine_dir(digest).join("manifest.json")).ok()?;
        let manifest: Manifest = serde_json::from_slice(&text).ok()?;
        let size = self.binary(digest).metadata().ok()?.len();
        (manifest.engine_digest == digest && size == manifest.binary_bytes).then_some(manifest)
    }

    /// Moves a built binary and its manifest into place, whole or not at all.
    pub(crate) fn publish(&self, built: &Path, manifest: &Manifest) -> Result<(), EnsureError> {
        let target = self.engine_dir(&manifest.engine_digest);
        let put = || -> std::io::Result<()> {
            let temp = tempfile::Builder::new().prefix(".new-").tempdir_in(&self.dir)?;
            std::fs::create_dir(temp.path().join("bin"))?;
            let binary = temp.path().join("bin/llama-server");
            std::fs::copy(built, &binary)?;
            File::open(&binary)?.sync_all()?;
            let text = serde_json::to_vec_pretty(manifest)?;
            let path = temp.path().join("manifest.json");
            std::fs::write(&path, text)?;
            File::open(&path)?.sync_all()?;
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
    let refuse = |source| EnsureError::Cache { action: "lock", path: path.to_path_buf(), source };
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(refuse)?;
    }
    let file = File::options().create(true).truncate(false).write(true).open(path).map_err(refuse)?;
    let mut waited = false;
    loop {
        match file.try_lock() {
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
