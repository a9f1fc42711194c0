//! Handing out an engine that is there: the bytes are those that were recorded, the build has said
//! what it is, and the use is noted. Nothing is handed out on the strength of its name.

use std::path::{Path, PathBuf};

use provisioners_model_provisioner::{DigestCache, DigestError};
use wire::config::{EngineSource, PathSource};

use crate::engine::{Engine, Search};
use crate::error::{Attempt, EnsureError, FailureKind, SourceFailure};
use crate::gpu::Target;
use crate::manifest::{self, Manifest};
use crate::source;
use crate::store::Store;
use crate::survey::{Survey, SurveyError};

impl Search<'_> {
    /// The engine that this manifest is of, or why it cannot be used as it is.
    pub(crate) fn issue(&self, mut manifest: Manifest, cached: bool) -> Result<Engine, SourceFailure> {
        let store = Store::new(self.cache);
        let binary = manifest.external.clone().unwrap_or_else(|| store.binary(&manifest.engine_digest));
        let actual = self.binary_digest(&binary)?;
        if actual != manifest.binary_sha256 {
            return Err(SourceFailure::verification(format!(
                "{} has SHA-256 {actual}, recorded when it was built is {}: it was changed or damaged",
                binary.display(),
                manifest.binary_sha256
            )));
        }
        for (name, recorded) in &manifest.libraries {
            let library = binary.with_file_name(name);
            if self.binary_digest(&library)? != *recorded {
                return Err(SourceFailure::verification(format!(
                    "{} is not the library that came with the engine: it was changed or damaged",
                    library.display()
                )));
            }
        }
        // An engine that was surveyed for the CPU has not shown that it sees a card.
        let enough = |survey: &Survey| self.device_mask().is_none() || !survey.cuda_devices.is_empty();
        let survey = match manifest.survey.take().filter(enough) {
            Some(survey) => survey,
            None => {
                let survey = self.survey(&binary)?;
                store.note(&Manifest {
                    survey: Some(survey.clone()),
                    schema_version: manifest::SCHEMA,
                    ..manifest.clone()
                })?;
                survey
            }
        };
        store.touch(&manifest.engine_digest);
        let (version, build_flags) = (manifest.version(), manifest.build_flags());
        Ok(Engine { binary, version, digest: manifest.engine_digest, build_flags, survey, cached })
    }

    /// The smoke gate.
    pub(crate) fn survey(&self, binary: &Path) -> Result<Survey, SourceFailure> {
        let scratch = tempfile::tempdir().map_err(SourceFailure::cache("create", std::env::temp_dir()))?;
        let mask = self.device_mask();
        Survey::take(self.host, binary, scratch.path(), mask, self.cancel).map_err(|error| match error {
            SurveyError::Cancelled => SourceFailure::Stop(EnsureError::Cancelled),
            SurveyError::Failed(reason) => SourceFailure::Next(FailureKind::Build, reason),
        })
    }

    fn device_mask(&self) -> Option<&str> {
        match self.target {
            Target::Cpu => None,
            Target::Cuda { device_mask, .. } => Some(device_mask),
        }
    }

    fn binary_digest(&self, binary: &Path) -> Result<String, SourceFailure> {
        let digests = DigestCache::new(self.cache.join("engines/digests"));
        digests.digest(binary, &mut |_| (), self.cancel).map_err(|error| match error {
            DigestError::Cancelled { .. } => SourceFailure::Stop(EnsureError::Cancelled),
            DigestError::Read { source, .. } => {
                SourceFailure::fetch(format!("cannot read the binary: {source}"))
            }
        })
    }

    /// An existing binary: usable as it is, named by its own digest.
    pub(crate) fn check_path(
        &self,
        source: &PathSource,
        attempts: &[Attempt],
    ) -> Result<Engine, SourceFailure> {
        let binary = executable(source).map_err(|failure| match failure {
            SourceFailure::Next(kind, reason) => {
                let source = EngineSource::Path(source.clone());
                let reason = source::with_unfit(reason, &source, self.cache, self.host.cpu());
                SourceFailure::Next(kind, reason)
            }
            stop @ SourceFailure::Stop(_) => stop,
        })?;
        let digest = self.binary_digest(&binary)?;
        Store::new(self.cache).refuse_later(&digest)?;
        let known = Store::new(self.cache).manifest(&digest);
        let known = known.filter(|known| known.external.as_ref() == Some(&binary));
        if let Some(known) = known {
            return self.issue(known, true);
        }
        let binary_bytes = binary.metadata().map_err(SourceFailure::cache("read", &binary))?.len();
        let manifest = Manifest {
            schema_version: manifest::SCHEMA,
            engine_digest: digest.clone(),
            source: EngineSource::Path(source.clone()),
            attempts: attempts.to_vec(),
            inputs: serde_json::json!({ "source": source::identity(&EngineSource::Path(source.clone())) }),
            cmake: String::new(),
            driver: None,
            licence: None,
            external: Some(binary),
            binary_sha256: digest,
            binary_bytes,
            libraries: std::collections::BTreeMap::new(),
            built_unix_ms: manifest::now_unix_ms(),
            build_ms: 0,
            imported_unix_ms: None,
            survey: None,
        };
        self.issue(manifest, true)
    }
}

/// The binary, if it looks like one that can be started.
pub(crate) fn executable(source: &PathSource) -> Result<PathBuf, SourceFailure> {
    use std::os::unix::fs::PermissionsExt as _;
    let binary = std::path::absolute(&source.binary).map_err(|e| SourceFailure::fetch(e.to_string()))?;
    match binary.metadata() {
        Err(e) => Err(SourceFailure::fetch(format!("cannot look at the binary: {e}"))),
        Ok(meta) if !meta.is_file() => Err(SourceFailure::fetch("it is not a file")),
        Ok(meta) if meta.permissions().mode() & 0o111 == 0 => {
            Err(SourceFailure::fetch("it is not executable; chmod +x it"))
        }
        Ok(_) => Ok(binary),
    }
}
