//! Packing: the pool is prepared as ever, then its files are hashed and written into one archive.

use std::path::{Path, PathBuf};

use provisioners_model_provisioner::{Cancel, Catalog, DigestError, ModelRef, sha256_file};
use wire::StepKind;
use wire::config::PoolConfig;

use super::archive::{self, write};
use super::{BundleError, Bundled, Contents, ENGINE, FORMAT, MODEL, Packed, io};
use crate::cuda::{managed, runtime, runtime::LICENCE};
use crate::error::SourceFailure;
use crate::key::{Inputs, sha256};
use crate::manifest::Manifest;
use crate::observer::{Observer, Step};
use crate::provisioner::{EngineProvisioner, Prepared};
use crate::store::Store;
use crate::survey::{Survey, SurveyError};
use crate::{libraries, recipe, source};

/// Something to pack: a file, or a text that is made for the bundle.
pub(super) enum Content {
    File(PathBuf),
    Text(Vec<u8>),
}

impl EngineProvisioner {
    /// Packs the pool's engine and model into `to`, which is replaced when it is there. Prepares them first;
    /// blocking.
    ///
    /// # Errors
    /// As `ensure`, and for engines and models that would be of no use elsewhere.
    pub fn export_bundle(
        &self,
        pool: &PoolConfig,
        to: &Path,
        observer: &dyn Observer,
        cancel: &Cancel,
    ) -> Result<Bundled, BundleError> {
        // Before anything is built: where it cannot be written nobody wants to hear of it last.
        drop(archive::beside(to)?);
        let Prepared { engine, model, .. } = self.prepare(pool, observer, cancel)?;
        let store = Store::new(&self.cache);
        let unportable = |problem: &str| BundleError::Unportable { problem: problem.to_owned() };
        let manifest =
            store.manifest(&engine.digest).ok_or_else(|| unportable("its engine has no manifest"))?;
        let mut content = Vec::new();
        let manifest = match &manifest.external {
            Some(binary) => self.packed_path(binary, &manifest, &mut content, cancel)?,
            None => {
                portable(&manifest).map_err(|problem| BundleError::Unportable { problem })?;
                let dir = store.engine_dir(&engine.digest);
                for name in ["manifest.json", "sbom.cdx.json"] {
                    content.push((format!("{ENGINE}/{name}"), Content::File(dir.join(name)), false));
                }
                push_licences(&mut content, &manifest, &dir)?;
                push_binaries(&mut content, &manifest, &store.binary(&engine.digest));
                manifest
            }
        };
        // What ships with the program is there already.
        if !matches!(ModelRef::parse(&pool.model), Ok(ModelRef::Builtin(_))) {
            let packed = Catalog::new(&self.cache).pack(&model).map_err(|error| BundleError::Unportable {
                problem: format!("its model cannot be described: {error}"),
            })?;
            content.push((format!("{MODEL}/manifest.json"), Content::Text(packed.manifest), false));
            for (name, path) in packed.files {
                content.push((format!("{MODEL}/{name}"), Content::File(path), false));
            }
        }
        let step = Step::new(observer, &pool.id, StepKind::EngineProvision);
        let files = content.iter().map(|(path, content, executable)| {
            step.doing(format!("checking {path}"));
            let (sha256, bytes) = measure(content, cancel)?;
            Ok(Packed { path: path.clone(), sha256, bytes, executable: *executable })
        });
        let contents = Contents {
            format: FORMAT,
            architecture: std::env::consts::ARCH.to_owned(),
            engine_digest: engine.digest.clone(),
            engine_version: engine.version.clone(),
            model_reference: model.model_ref.clone(),
            model_digest: model.digest.clone(),
            files: files.collect::<Result<_, BundleError>>()?,
        };
        let (sha256, bytes) = write(to, &contents, &content, &step, cancel)?;
        step.completed(format!("{} has {bytes} bytes", to.display()));
        Ok(Bundled {
            file: to.to_path_buf(),
            sha256,
            bytes,
            engine_version: contents.engine_version,
            engine_digest: contents.engine_digest,
            model_reference: contents.model_reference,
            model_digest: contents.model_digest,
            notice: notice(&manifest),
        })
    }

    /// A binary of this machine: with the libraries beside it, once a copy of both runs by itself. Nobody recorded
    /// what it was built for, so it is held to be for this processor.
    fn packed_path(
        &self,
        binary: &Path,
        known: &Manifest,
        content: &mut Vec<(String, Content, bool)>,
        cancel: &Cancel,
    ) -> Result<Manifest, BundleError> {
        let libraries = libraries::beside(binary, cancel).map_err(|failure| match failure {
            SourceFailure::Stop(source) => BundleError::Ensure { source },
            SourceFailure::Next(_, problem) => BundleError::Unportable { problem },
        })?;
        let copy = tempfile::Builder::new().prefix(".export-").tempdir_in(&self.cache);
        let copy = copy.map_err(io("write in", &self.cache))?;
        let names = libraries.keys().map(String::as_str).chain(["llama-server"]);
        for name in names {
            let from =
                if name == "llama-server" { binary.to_path_buf() } else { binary.with_file_name(name) };
            std::fs::copy(&from, copy.path().join(name)).map_err(io("copy", &from))?;
        }
        let scratch = tempfile::tempdir().map_err(io("write in", &std::env::temp_dir()))?;
        let asked = Survey::take(&self.host, &copy.path().join("llama-server"), scratch.path(), None, cancel);
        asked.map_err(|error| match error {
            SurveyError::Cancelled => BundleError::Cancelled,
            SurveyError::Failed(problem) => BundleError::Unportable {
                problem: format!(
                    "{} does not run without what lies around it, apart from the libraries in its own directory: \
                     {problem}",
                    binary.display()
                ),
            },
        })?;
        let manifest = Manifest {
            inputs: serde_json::to_value(Inputs {
                target: self.host.cpu().to_owned(),
                ..Inputs::prebuilt(source::identity(&known.source))
            })
            .unwrap_or_default(),
            external: None,
            libraries,
            ..known.clone()
        };
        let text = serde_json::to_vec_pretty(&manifest).map_err(|error| BundleError::Io {
            action: "describe",
            path: binary.to_path_buf(),
            source: error.into(),
        })?;
        content.push((format!("{ENGINE}/manifest.json"), Content::Text(text), false));
        push_binaries(content, &manifest, binary);
        Ok(manifest)
    }
}

/// The libraries first: the binary is the last to come.
fn push_binaries(content: &mut Vec<(String, Content, bool)>, manifest: &Manifest, binary: &Path) {
    for name in manifest.libraries.keys() {
        content.push((format!("{ENGINE}/bin/{name}"), Content::File(binary.with_file_name(name)), true));
    }
    content.push((format!("{ENGINE}/bin/llama-server"), Content::File(binary.to_path_buf()), true));
}

/// What the licences of the libraries ask for: their texts go along.
fn push_licences(
    content: &mut Vec<(String, Content, bool)>,
    manifest: &Manifest,
    dir: &Path,
) -> Result<(), BundleError> {
    let mut texts: Vec<PathBuf> = std::fs::read_dir(dir)
        .map_err(io("read", dir))?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(LICENCE)))
        .collect();
    texts.sort();
    if carries_cuda(manifest) && texts.is_empty() {
        return Err(BundleError::Unportable {
            problem: format!(
                "NVIDIA's libraries are passed on with their licence only, and its text is not in {} any more; remove \
                 that directory, so that the engine is built again",
                dir.display()
            ),
        });
    }
    for path in texts {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        content.push((format!("{ENGINE}/{name}"), Content::File(path), false));
    }
    Ok(())
}

fn carries_cuda(manifest: &Manifest) -> bool {
    manifest.libraries.keys().any(|name| runtime::is_one(name))
}

/// What whoever packs an engine should know: for which machines it is, and what is in it.
fn notice(manifest: &Manifest) -> Option<String> {
    let target = manifest.inputs["target"].as_str();
    let native = target.filter(|target| *target != std::env::consts::ARCH).map(|_| {
        "the engine is used only by a processor that has every instruction set of this one; `cmake_flags: \
         [-DGGML_NATIVE=OFF]` builds one for others, too"
    });
    let cuda = carries_cuda(manifest).then_some(
        "CUDA's runtime and cuBLAS are in it; NVIDIA's licence, whose text is in it, too, says under which terms you may \
         give it to others",
    );
    let notices: Vec<_> = [native, cuda].into_iter().flatten().collect();
    (!notices.is_empty()).then(|| notices.join("; "))
}

/// What cannot work on another machine is not packed.
fn portable(manifest: &Manifest) -> Result<(), String> {
    let managed = manifest.inputs["compilers"].to_string().contains(managed::MARK);
    if !managed {
        return Ok(());
    }
    if !recipe::looks_beside(&manifest.inputs["definitions"]) {
        return Err("the other machine has no CUDA toolkit where this engine looks for it: it was built with another \
                    CMAKE_INSTALL_RPATH or CMAKE_BUILD_WITH_INSTALL_RPATH in `cmake_flags`; without them it looks \
                    beside its binary, and the libraries go along"
            .to_owned());
    }
    Ok(())
}

fn measure(content: &Content, cancel: &Cancel) -> Result<(String, u64), BundleError> {
    match content {
        Content::Text(text) => Ok((sha256(text), text.len() as u64)),
        Content::File(path) => {
            let digest = sha256_file(path, &mut |_| (), cancel).map_err(|error| match error {
                DigestError::Cancelled { .. } => BundleError::Cancelled,
                DigestError::Read { path, source } => BundleError::Io { action: "read", path, source },
            })?;
            let bytes = path.metadata().map_err(io("read", path))?.len();
            Ok((digest, bytes))
        }
    }
}
