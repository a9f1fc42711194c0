//! Which version of its format a file of the store is in. Older ones are read; what a later program wrote is
//! neither guessed at nor replaced.

use std::path::Path;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::FetchError;

/// Of the manifests and of the index. Raised when an older reader could not use what a newer writer says.
pub(super) const VERSION: u32 = 1;

/// What a file is in that does not say it.
pub(super) fn first() -> u32 {
    1
}

/// For `deserialize_with`: a version that this program reads.
pub(super) fn known<'de, D: Deserializer<'de>>(value: D) -> Result<u32, D::Error> {
    let version = u32::deserialize(value)?;
    if (1..=VERSION).contains(&version) {
        return Ok(version);
    }
    Err(D::Error::custom(format!("it has version {version}, and this program reads up to {VERSION}")))
}

/// An error when the file at `path` is there and a later program wrote it.
pub(super) fn refuse_later(path: &Path) -> Result<(), FetchError> {
    #[derive(Deserialize)]
    struct Versioned {
        #[serde(default = "first")]
        schema_version: u32,
    }
    let text = std::fs::read(path).unwrap_or_default();
    // What cannot be read says nothing, and is replaced.
    match serde_json::from_slice::<Versioned>(&text) {
        Ok(Versioned { schema_version: version }) if version > VERSION => {
            Err(FetchError::Later { path: path.to_path_buf(), version, known: VERSION })
        }
        _ => Ok(()),
    }
}
