//! Packing: the pool is prepared as ever, then its files are hashed and written into one archive.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use provisioners_model_provisioner::{Cancel, Catalog, DigestError, ModelRef, sha256_file};
use sha2::{Digest as _, Sha256};
use wire::StepKind;
use wire::config::PoolConfig;

use super::{BundleError, Bundled, CONTENTS, Contents, ENGINE, FORMAT, MODEL, Packed, io};
use crate::error::SourceFailure;
use crate::key::{Inputs, sha256};
use crate::manifest::Manifest;
use crate::observer::{Observer, Step};
use crate::provisioner::{EngineProvisioner, Prepared};
use crate::store::Store;
use crate::survey::{Survey, SurveyError};
use crate::{libraries, source};

/// Something to pack: a file, or a text that is made for the bundle.
enum Content {
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
        let Prepared { engine, model, .. } = self.prepare(pool, observer, cancel)?;
        let store = Store::new(&self.cache);
        let unportable = |problem: &str| BundleError::Unportable { problem: problem.to_owned() };
        let manifest =
            store.manifest(&engine.digest).ok_or_else(|| unportable("its engine has no manifest"))?;
        let mut content = Vec::new();
        let manifest = match &manifest.external {
            Some(binary) => self.packed_path(binary, &manifest, &mut content, cancel)?,
            None => {
                portable(&manifest, &self.cache).map_err(|problem| BundleError::Unportable { problem })?;
                let dir = store.engine_dir(&engine.digest);
                for name in ["manifest.json", "sbom.cdx.json"] {
                    content.push((format!("{ENGINE}/{name}"), Content::File(dir.join(name)), false));
                }
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
            notice: native(&manifest),
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

/// What whoever packs an engine for one processor should know.
fn native(manifest: &Manifest) -> Option<String> {
    let target = manifest.inputs["target"].as_str()?;
    (target != std::env::consts::ARCH).then(|| {
        "the engine is used only by a processor that has every instruction set of this one; `cmake_flags: \
         [-DGGML_NATIVE=OFF]` builds one for others, too"
            .to_owned()
    })
}

/// What cannot work on another machine is not packed.
fn portable(manifest: &Manifest, cache: &Path) -> Result<(), String> {
    if manifest.inputs["compilers"].to_string().contains("managed CUDA") {
        return Err(format!(
            "its engine loads CUDA's runtime and cuBLAS (libcudart.so.13, libcublas.so.13) from their place in this \
             cache ({}), which is written into the binary and does not exist elsewhere; with a toolkit of the system \
             (`provisioning.toolkit: system`) on both machines it can be packed, or let the other machine build",
            cache.join("tools").display()
        ));
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

fn write(
    to: &Path,
    contents: &Contents,
    content: &[(String, Content, bool)],
    step: &Step<'_>,
    cancel: &Cancel,
) -> Result<(String, u64), BundleError> {
    let dir = to.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temp = tempfile::NamedTempFile::new_in(dir).map_err(io("write in", dir))?;
    let failed = |source: io::Error| match cancel.is_cancelled() {
        true => BundleError::Cancelled,
        false => BundleError::Io { action: "write", path: to.to_path_buf(), source },
    };
    let mut archive = tar::Builder::new(Hashing { file: temp.as_file(), hasher: Sha256::new(), bytes: 0 });
    let text = serde_json::to_vec_pretty(contents).map_err(|error| failed(error.into()))?;
    append(&mut archive, CONTENTS, text.len() as u64, false, text.as_slice()).map_err(failed)?;
    let total: u64 = contents.files.iter().map(|file| file.bytes).sum();
    let done = Cell::new(0);
    for (packed, (path, content, executable)) in contents.files.iter().zip(content) {
        let watched = |inner: Box<dyn Read>| Watched {
            inner: inner.take(packed.bytes),
            done: &done,
            total,
            step,
            cancel,
        };
        let reader = match content {
            Content::Text(text) => watched(Box::new(io::Cursor::new(text.clone()))),
            Content::File(path) => watched(Box::new(File::open(path).map_err(io("read", path))?)),
        };
        append(&mut archive, path, packed.bytes, *executable, reader).map_err(failed)?;
    }
    let hashing = archive.into_inner().map_err(failed)?;
    let (digest, bytes) = (hashing.hasher.finalize(), hashing.bytes);
    temp.as_file().sync_all().map_err(failed)?;
    // A temporary file is private to its maker; a bundle is for somebody else.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(temp.path(), mode).map_err(failed)?;
    temp.persist(to).map_err(|error| failed(error.error))?;
    Ok((digest.iter().map(|b| format!("{b:02x}")).collect(), bytes))
}

fn append(
    archive: &mut tar::Builder<Hashing<'_>>,
    path: &str,
    bytes: u64,
    executable: bool,
    reader: impl Read,
) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes);
    header.set_mode(if executable { 0o755 } else { 0o644 });
    archive.append_data(&mut header, path, reader)
}

/// Writes, and hashes what it wrote.
struct Hashing<'a> {
    file: &'a File,
    hasher: Sha256,
    bytes: u64,
}

impl Write for Hashing<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let n = self.file.write(buffer)?;
        self.hasher.update(&buffer[..n]);
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Reads, says how far it is, and ends when nobody wants it any more.
struct Watched<'a> {
    inner: io::Take<Box<dyn Read>>,
    done: &'a Cell<u64>,
    total: u64,
    step: &'a Step<'a>,
    cancel: &'a Cancel,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancel.is_cancelled() {
            return Err(io::Error::other("interrupted"));
        }
        let n = self.inner.read(buffer)?;
        self.done.set(self.done.get() + n as u64);
        let (done, total) = (self.done.get(), self.total);
        self.step.progress(|| format!("packing: {} of {} MiB", done >> 20, total >> 20), done, total);
        Ok(n)
    }
}
