//! Taking a bundle in: everything is unpacked beside the stores and checked, then moved into place.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use provisioners_model_provisioner::{Cancel, Catalog, DigestError, sha256_file};
use sha2::{Digest as _, Sha256};
use tar::EntryType;
use wire::config::EngineSource;

use super::fit::{lacking, needs};
use super::{BundleError, Bundled, CONTENTS, Contents, ENGINE, FORMAT, MODEL, Packed, io as failed};
use crate::host::{free_disk, this_cpu};
use crate::key::Inputs;
use crate::manifest::{self, Manifest};
use crate::store::Store;

const MAX_CONTENTS: u64 = 1 << 20;
const MAX_FILES: usize = 2048;
/// Left free for everybody else.
const MARGIN: u64 = 64 << 20;

/// Takes the engine and the model of `file` into `cache`. `expected` is the SHA-256 that whoever packed it
/// told by another way; without it nobody vouches for the bundle, and a strict trust policy refuses its model.
/// `on_progress` gets bytes done and in all.
///
/// # Errors
/// When anything is not as the bundle itself says, or the bundle is not the expected one; then nothing is
/// taken in.
pub fn import(
    cache: &Path,
    file: &Path,
    expected: Option<&str>,
    on_progress: &mut dyn FnMut(u64, u64),
    cancel: &Cancel,
) -> Result<Bundled, BundleError> {
    let refuse = |problem: String| BundleError::Refused { file: file.to_path_buf(), problem };
    let bytes = file.metadata().map_err(failed("read", file))?.len();
    has_room(cache, bytes)?;
    let sha256 = sha256_file(file, &mut |_| (), cancel).map_err(|error| match error {
        DigestError::Cancelled { .. } => BundleError::Cancelled,
        DigestError::Read { path, source } => BundleError::Io { action: "read", path, source },
    })?;
    if let Some(expected) = expected.filter(|expected| !expected.eq_ignore_ascii_case(&sha256)) {
        return Err(refuse(format!("it has SHA-256 {sha256}, expected is {expected}")));
    }
    std::fs::create_dir_all(cache).map_err(failed("create", cache))?;
    let temp =
        tempfile::Builder::new().prefix(".import-").tempdir_in(cache).map_err(failed("write in", cache))?;
    let unpacking = Unpacking { file, root: temp.path(), cancel };
    let (contents, digests) = unpacking.run(bytes, on_progress)?;
    let engine = checked_engine(&contents, temp.path(), &digests).map_err(refuse)?;
    if contents.files.iter().any(|file| file.path.starts_with(MODEL)) {
        let own: BTreeMap<String, String> = digests
            .iter()
            .filter_map(|(path, digest)| Some((path.strip_prefix("model/")?.to_owned(), digest.clone())))
            .collect();
        Catalog::new(cache)
            .adopt(&temp.path().join(MODEL), &own, &contents.model_digest, expected.is_some())
            .map_err(|source| BundleError::Model { file: file.to_path_buf(), source })?;
    }
    Store::new(cache).take_in(&temp.path().join(ENGINE), &engine, cancel)?;
    Ok(Bundled {
        file: file.to_path_buf(),
        sha256,
        bytes,
        engine_version: contents.engine_version,
        engine_digest: contents.engine_digest,
        model_reference: contents.model_reference,
        model_digest: contents.model_digest,
        notice: notice(&engine),
    })
}

/// What keeps the engine from being used here.
fn notice(engine: &Manifest) -> Option<String> {
    let lacks = lacking(engine.inputs["target"].as_str()?, &this_cpu());
    (!lacks.is_empty()).then(|| format!("the engine is not used on this machine: it {}", needs(&lacks)))
}

/// It is not compressed: what is in it is as large as it is. Asked before anything is read of it.
fn has_room(cache: &Path, bytes: u64) -> Result<(), BundleError> {
    let free = free_disk(cache);
    if bytes.saturating_add(MARGIN) <= free {
        return Ok(());
    }
    let problem = io::Error::other(format!("{} MiB are needed and {} MiB are free", bytes >> 20, free >> 20));
    Err(failed("unpack the bundle in", cache)(problem))
}

struct Unpacking<'a> {
    file: &'a Path,
    root: &'a Path,
    cancel: &'a Cancel,
}

impl Unpacking<'_> {
    /// Writes every file; the SHA-256 of each, as written, is the announced one.
    fn run(
        &self,
        bytes: u64,
        on_progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(Contents, BTreeMap<String, String>), BundleError> {
        let source = File::open(self.file).map_err(failed("read", self.file))?;
        let mut archive = tar::Archive::new(io::BufReader::with_capacity(1 << 20, source));
        let damaged = |error: io::Error| self.refuse(format!("it is damaged: {error}"));
        let mut entries = archive.entries().map_err(damaged)?;
        let first = match entries.next() {
            None => return Err(self.refuse("it is empty".to_owned())),
            // What the reader says of it quotes what stands there, whatever that is.
            Some(Err(_)) => return Err(self.no_bundle()),
            Some(Ok(first)) => first,
        };
        let contents = self.contents(first)?;
        let (mut digests, mut done) = (BTreeMap::new(), 0);
        for entry in entries {
            let mut entry = entry.map_err(damaged)?;
            let path = entry.path().map_err(damaged)?.to_string_lossy().into_owned();
            let packed = contents.files.iter().find(|packed| packed.path == path);
            let regular = entry.header().entry_type() == EntryType::Regular;
            let Some(packed) = packed.filter(|packed| regular && packed.bytes == entry.size()) else {
                return Err(self.refuse(format!("{path:?} is in it and not as {CONTENTS} lists it")));
            };
            if digests.contains_key(&path) {
                return Err(self.refuse(format!("{path} is in it twice")));
            }
            let digest = self.unpack(&mut entry, packed, &mut |n| {
                done += n;
                on_progress(done, bytes);
            })?;
            if digest != packed.sha256 {
                return Err(self.refuse(format!("{path} has SHA-256 {digest}, listed is {}", packed.sha256)));
            }
            digests.insert(path, digest);
        }
        match contents.files.iter().find(|file| !digests.contains_key(&file.path)) {
            Some(missing) => Err(self.refuse(format!("{} is listed and not in it", missing.path))),
            None => Ok((contents, digests)),
        }
    }

    fn contents(&self, mut first: tar::Entry<'_, impl Read>) -> Result<Contents, BundleError> {
        let named = first.path().is_ok_and(|path| path == Path::new(CONTENTS));
        if !named || first.size() > MAX_CONTENTS {
            return Err(self.no_bundle());
        }
        let mut text = Vec::new();
        first.read_to_end(&mut text).map_err(|error| self.refuse(format!("it is damaged: {error}")))?;
        let contents: Contents =
            serde_json::from_slice(&text).map_err(|error| self.refuse(format!("{CONTENTS}: {error}")))?;
        if contents.format != FORMAT {
            let (theirs, ours) = (contents.format, FORMAT);
            return Err(self.refuse(format!("it has format {theirs}, this program reads {ours}")));
        }
        let here = std::env::consts::ARCH;
        if contents.architecture != here {
            return Err(self.refuse(format!("it is for {}, this is {here}", contents.architecture)));
        }
        if let Some(odd) = contents.files.iter().find(|file| !is_inner(&file.path)) {
            return Err(self.refuse(format!("{:?} is no place for a file of a bundle", odd.path)));
        }
        if contents.files.len() > MAX_FILES {
            return Err(self.refuse(format!("it lists more than {MAX_FILES} files")));
        }
        Ok(contents)
    }

    fn unpack(
        &self,
        entry: &mut impl Read,
        packed: &Packed,
        on_bytes: &mut dyn FnMut(u64),
    ) -> Result<String, BundleError> {
        let path = self.root.join(&packed.path);
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).map_err(failed("create", dir))?;
        }
        let mut file =
            File::options().write(true).create_new(true).open(&path).map_err(failed("write", &path))?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        loop {
            if self.cancel.is_cancelled() {
                return Err(BundleError::Cancelled);
            }
            let n =
                entry.read(&mut buffer).map_err(|error| self.refuse(format!("it is damaged: {error}")))?;
            if n == 0 {
                break;
            }
            hasher.update(&buffer[..n]);
            file.write_all(&buffer[..n]).map_err(failed("write", &path))?;
            on_bytes(n as u64);
        }
        let mode = if packed.executable { 0o755 } else { 0o644 };
        file.set_permissions(std::fs::Permissions::from_mode(mode)).map_err(failed("write", &path))?;
        file.sync_all().map_err(failed("write", &path))?;
        Ok(hasher.finalize().iter().map(|b| format!("{b:02x}")).collect())
    }

    fn no_bundle(&self) -> BundleError {
        self.refuse(format!("it does not begin with {CONTENTS}, so it is no bundle"))
    }

    fn refuse(&self, problem: String) -> BundleError {
        BundleError::Refused { file: self.file.to_path_buf(), problem }
    }
}

/// `engine/NAME`, `engine/bin/NAME` or `model/NAME`, the name a plain one.
fn is_inner(path: &str) -> bool {
    let name = ["engine/bin/", "engine/", "model/"].iter().find_map(|dir| path.strip_prefix(dir));
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-+".contains(&b);
    name.is_some_and(|name| {
        (1..=255).contains(&name.len()) && name.bytes().all(plain) && !name.starts_with('.') && name != "bin"
    })
}

/// The engine's manifest, once it speaks of the files that came.
fn checked_engine(
    contents: &Contents,
    root: &Path,
    digests: &BTreeMap<String, String>,
) -> Result<Manifest, String> {
    let path: PathBuf = root.join(ENGINE).join("manifest.json");
    let text = std::fs::read(&path).map_err(|error| format!("its engine has no manifest: {error}"))?;
    let engine: Manifest =
        serde_json::from_slice(&text).map_err(|error| format!("the engine's manifest: {error}"))?;
    let inputs: Inputs = serde_json::from_value(engine.inputs.clone())
        .map_err(|error| format!("the engine's manifest: {error}"))?;
    let own = match &engine.source {
        // What it was built from nobody knows: it is what its bytes are.
        EngineSource::Path(_) => engine.binary_sha256.clone(),
        _ => inputs.digest(),
    };
    if own != engine.engine_digest || engine.engine_digest != contents.engine_digest {
        return Err("its engine is not the one that its manifest describes".to_owned());
    }
    if engine.external.is_some() {
        return Err("its engine is a binary of another machine".to_owned());
    }
    let binary = [("llama-server", &engine.binary_sha256)];
    let libraries = engine.libraries.iter().map(|(name, digest)| (name.as_str(), digest));
    for (name, recorded) in binary.into_iter().chain(libraries) {
        if digests.get(&format!("{ENGINE}/bin/{name}")) != Some(recorded) {
            return Err(format!("{name} is not the file that was recorded when the engine was built"));
        }
    }
    if let Some(odd) = digests.keys().find(|path| {
        let name = path.strip_prefix("engine/bin/");
        name.is_some_and(|name| name != "llama-server" && !engine.libraries.contains_key(name))
    }) {
        return Err(format!("{odd} is not of the engine that its manifest describes"));
    }
    // What it says of itself on another machine is no proof on this one.
    Ok(Manifest { imported_unix_ms: Some(manifest::now_unix_ms()), survey: None, ..engine })
}
