//! Staging: from a reference to a verified file on this machine and what its header says.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use wire::config::{ModelsConfig, TrustPolicy};
use wire::{ModelPart, ModelRecord};

use crate::builtin::{self, Builtin};
use crate::catalog;
use crate::digest::{DigestCache, DigestError, hex, of_model};
use crate::file_memory::{FileMemory, FileState};
use crate::gguf::{self, Dimensions, GgufHeader};
use crate::remote::{Network, Remote};
use crate::stage_error::StageError;
use crate::trust::VerifyFile;
use crate::{Cancel, ModelRef};

/// Stages models into, and remembers digests in, one cache directory.
#[derive(Clone)]
pub struct ModelProvisioner {
    cache: PathBuf,
    network: Network,
    offline: bool,
    config: ModelsConfig,
    verifier: Option<Arc<dyn VerifyFile>>,
}

/// What happens while a model is staged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StageEvent {
    /// It moved on.
    Progress(StageProgress),
    /// Something a person should know that is not an error.
    Notice(String),
}

impl StageEvent {
    pub(crate) fn progress(description: String, bytes_done: u64, bytes_total: u64) -> Self {
        Self::Progress(StageProgress { description, bytes_done, bytes_total })
    }
}

/// How far staging is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageProgress {
    /// What goes on, as `checking the SHA-256 of a.gguf`.
    pub description: String,
    /// Bytes done.
    pub bytes_done: u64,
    /// Bytes in all; zero while nothing is known.
    pub bytes_total: u64,
}

impl ModelProvisioner {
    /// `cache_dir` is the product's cache (`paths.cache`); it is created when something is stored.
    #[must_use]
    pub fn new(cache_dir: impl Into<PathBuf>) -> Self {
        Self {
            cache: cache_dir.into(),
            network: Network::default(),
            offline: false,
            config: ModelsConfig::default(),
            verifier: None,
        }
    }

    /// Reaches the network in this way; without it the public hub, without a token.
    #[must_use]
    pub fn with_network(mut self, network: Network) -> Self {
        self.network = network;
        self
    }

    /// Holds models to these rules; `verifier` carries out `verify_command` where one is configured.
    #[must_use]
    pub fn with_rules(mut self, config: ModelsConfig, verifier: Option<Arc<dyn VerifyFile>>) -> Self {
        self.config = config;
        self.verifier = verifier;
        self
    }

    /// Uses only what is on this machine.
    #[must_use]
    pub fn offline(mut self, offline: bool) -> Self {
        self.offline = offline;
        self
    }

    pub(crate) fn is_offline(&self) -> bool {
        self.offline
    }

    pub(crate) fn rules(&self) -> &ModelsConfig {
        &self.config
    }

    pub(crate) fn models(&self) -> PathBuf {
        self.cache.join("models")
    }

    /// Makes the model available and verified. Blocking: may fetch and read the whole file.
    ///
    /// `expected_sha256` is compared when given (hex, any case). A file that is already there and
    /// unchanged since it was last verified is not read again.
    pub fn stage(
        &self,
        reference: &ModelRef,
        expected_sha256: Option<&str>,
        on_event: &dyn Fn(StageEvent),
        cancel: &Cancel,
    ) -> Result<ModelRecord, StageError> {
        let untrusted = |problem| StageError::Untrusted { reference: reference.to_string(), problem };
        self.admit(reference, expected_sha256)?;
        let path = match reference {
            ModelRef::Builtin(name) => self.place_builtin(find_builtin(name)?, cancel)?,
            // One that came in a bundle stands for the file that it was on the other machine.
            ModelRef::File(path) => match (existing_file(path), self.staged_before(reference)) {
                (Err(StageError::Missing { .. }), Some(taken_in)) => taken_in,
                (here, _) => here?,
            },
            ModelRef::Https(_) | ModelRef::Hub { .. } => {
                self.fetch(reference, expected_sha256, on_event, cancel)?
            }
        };
        // The header first: it costs nothing and spares hashing a file that is no model.
        let header =
            gguf::read_header(&path).map_err(|source| StageError::Gguf { path: path.clone(), source })?;
        let parts = self.part_digests(&header, on_event, cancel)?;
        let digest = of_model(parts.iter().map(|part| part.digest.as_str()));
        // What came in a bundle has its digest for a name, and nothing else to be compared with.
        let taken_in = |path: &Path| path.parent()?.file_name()?.to_str().map(str::to_owned);
        let named = match reference {
            ModelRef::File(asked) if std::path::absolute(asked).ok().as_ref() != Some(&path) => {
                taken_in(&path)
            }
            _ => None,
        };
        if let Some(expected) = named.filter(|expected| *expected != digest) {
            return Err(StageError::DigestMismatch { path, expected, actual: digest });
        }
        if let Some(expected) = expected_sha256.filter(|expected| !expected.eq_ignore_ascii_case(&digest)) {
            return Err(StageError::DigestMismatch { path, expected: expected.to_owned(), actual: digest });
        }
        for part in &parts {
            self.ask_verifier(&part.path, &part.digest, cancel).map_err(|problem| {
                match cancel.is_cancelled() {
                    true => StageError::Digest { source: DigestError::Cancelled { path: path.clone() } },
                    false => untrusted(problem),
                }
            })?;
        }
        catalog::touch(&self.models(), &path);
        let stem = || path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
        let number = |of: fn(&Dimensions) -> Option<u64>| {
            header.dimensions.as_ref().and_then(of).and_then(|number| u32::try_from(number).ok())
        };
        Ok(ModelRecord {
            model_ref: reference.to_string(),
            id: header.name.clone().unwrap_or_else(stem),
            size_bytes: header.file_size,
            digest,
            ctx_max: header.ctx_max,
            quantisation: header.quantisation,
            architecture: header.architecture,
            parameters: header.parameters,
            chat_template: header.chat_template,
            layers: number(|numbers| Some(numbers.layers)),
            heads: number(|numbers| Some(numbers.heads)),
            vocabulary: number(|numbers| numbers.vocabulary),
            parts: if parts.len() > 1 { parts } else { Vec::new() },
            path,
        })
    }

    fn fetch(
        &self,
        reference: &ModelRef,
        pinned: Option<&str>,
        on_event: &dyn Fn(StageEvent),
        cancel: &Cancel,
    ) -> Result<PathBuf, StageError> {
        let staged = self.with_remote(on_event, cancel, |remote| remote.stage(reference, pinned));
        staged.map_err(|source| StageError::of_fetch(reference, source))
    }

    pub(crate) fn with_remote<T>(
        &self,
        on_event: &dyn Fn(StageEvent),
        cancel: &Cancel,
        work: impl FnOnce(&Remote<'_>) -> T,
    ) -> T {
        let models = self.models();
        let digests = self.digests();
        let (network, offline) = (&self.network, self.offline);
        let strict = self.config.trust == TrustPolicy::Strict;
        let quota = self.config.quota_gib.map(|gib| gib.saturating_mul(1 << 30));
        work(&Remote { network, models, digests, offline, strict, quota, on_event, cancel })
    }

    /// Asked once for each state of a file: a signature check reads all of it.
    fn ask_verifier(&self, path: &Path, digest: &str, cancel: &Cancel) -> Result<(), String> {
        let Some(verifier) = &self.verifier else { return Ok(()) };
        let memory = FileMemory::new(self.cache.join("models/verified"));
        let fact = hex(&Sha256::digest(format!("{digest} {}", verifier.identity())));
        let state = FileState::of(path).map_err(|error| error.to_string())?;
        if memory.recall(&state).as_ref() == Some(&fact) {
            return Ok(());
        }
        verifier.verify(path, cancel)?;
        memory.remember(&state, &fact);
        Ok(())
    }

    /// The digest of each file of the model, remembered where nothing about the file changed.
    fn part_digests(
        &self,
        header: &GgufHeader,
        on_event: &dyn Fn(StageEvent),
        cancel: &Cancel,
    ) -> Result<Vec<ModelPart>, StageError> {
        let mut parts = Vec::new();
        let mut before = 0;
        for path in &header.files {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let mut report = |done| {
                let description = format!("checking the SHA-256 of {name}");
                on_event(StageEvent::progress(description, before + done, header.file_size));
            };
            let digest = self.digests().digest(path, &mut report, cancel)?;
            let size_bytes = path.metadata().map_or(0, |meta| meta.len());
            before += size_bytes;
            parts.push(ModelPart { path: path.clone(), size_bytes, digest });
        }
        Ok(parts)
    }

    /// Where a built-in model is in the cache, once it is there.
    pub(crate) fn builtin_path(&self, model: &Builtin) -> PathBuf {
        self.models().join("builtin").join(model.digest()).join(format!("{}.gguf", model.name))
    }

    /// The path of a built-in model in the cache, written or repaired when it is not intact there.
    fn place_builtin(&self, model: &Builtin, cancel: &Cancel) -> Result<PathBuf, StageError> {
        let path = self.builtin_path(model);
        let dir = path.parent().unwrap_or(&self.cache);
        let same_size =
            path.metadata().is_ok_and(|meta| meta.is_file() && meta.len() == model.bytes.len() as u64);
        if same_size && self.digests().digest(&path, &mut |_| (), cancel)? == model.digest() {
            return Ok(path);
        }
        match write_atomically(dir, &path, model.bytes) {
            Ok(()) => Ok(path),
            Err(source) => Err(StageError::Store { path, source }),
        }
    }

    fn digests(&self) -> DigestCache {
        DigestCache::new(self.cache.join("models/digests"))
    }
}

pub(crate) fn find_builtin(name: &str) -> Result<&'static Builtin, StageError> {
    builtin::all().into_iter().find(|model| model.name == name).ok_or_else(|| StageError::UnknownBuiltin {
        name: name.to_owned(),
        known: builtin::all().map(|model| model.name).join(", "),
    })
}

pub(crate) fn existing_file(path: &Path) -> Result<PathBuf, StageError> {
    let unusable = |problem: String| StageError::Unusable { path: path.to_path_buf(), problem };
    let path = std::path::absolute(path).map_err(|e| unusable(e.to_string()))?;
    match path.metadata() {
        Ok(meta) if meta.is_file() => Ok(path),
        Ok(_) => Err(unusable("it is not a regular file; name the .gguf file itself".to_owned())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(StageError::Missing { path }),
        Err(e) => Err(unusable(e.to_string())),
    }
}

fn write_atomically(dir: &Path, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let mut temp = tempfile::NamedTempFile::new_in(dir)?;
    temp.write_all(bytes)?;
    temp.as_file().sync_all()?;
    temp.persist(path).map_err(|e| e.error)?;
    std::fs::File::open(dir)?.sync_all()
}
