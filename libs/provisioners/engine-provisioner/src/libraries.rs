//! The shared libraries that lie beside a binary which somebody else built: they are as much the engine as
//! the binary is, so they are recorded, copied and checked with it.

use std::collections::BTreeMap;
use std::path::Path;

use provisioners_model_provisioner::{Cancel, DigestError, sha256_file};

use crate::error::{EnsureError, SourceFailure};

/// More than any release has.
const MAX_LIBRARIES: usize = 256;

/// Names and SHA-256 of the libraries in the directory of `binary`.
pub(crate) fn beside(binary: &Path, cancel: &Cancel) -> Result<BTreeMap<String, String>, SourceFailure> {
    let dir = binary.parent().unwrap_or(binary);
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).map_err(SourceFailure::cache("read", dir))?.flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        if !is_library(&name) || !entry.path().is_file() {
            continue;
        }
        let digest = sha256_file(&entry.path(), &mut |_| (), cancel).map_err(|error| match error {
            DigestError::Cancelled { .. } => SourceFailure::Stop(EnsureError::Cancelled),
            DigestError::Read { path, source } => SourceFailure::cache("read", path)(source),
        })?;
        found.insert(name, digest);
        if found.len() > MAX_LIBRARIES {
            let problem = format!("{} has more than {MAX_LIBRARIES} libraries", dir.display());
            return Err(SourceFailure::fetch(problem));
        }
    }
    Ok(found)
}

/// `libggml.so`, `libllama.so.0`.
fn is_library(name: &str) -> bool {
    name.ends_with(".so") || name.contains(".so.")
}
