//! What is written beside an engine: how it came to be, and what it says about itself.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use wire::config::EngineSource;

use crate::error::Attempt;
use crate::survey::Survey;

/// Raised when a reader must know; older ones are read and completed when their engine is used.
pub(crate) const SCHEMA: u32 = 2;

/// How an engine came to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) schema_version: u32,
    pub(crate) engine_digest: String,
    pub(crate) source: EngineSource,
    /// Sources that were tried before this one, and why they failed.
    pub(crate) attempts: Vec<Attempt>,
    /// Everything that went into the digest: source, definitions, compilers, target.
    pub(crate) inputs: serde_json::Value,
    pub(crate) cmake: String,
    /// The NVIDIA driver of the machine that built it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) driver: Option<String>,
    /// As SPDX names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) licence: Option<String>,
    /// What a `path` source names; a built engine is in the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) external: Option<PathBuf>,
    pub(crate) binary_sha256: String,
    pub(crate) binary_bytes: u64,
    /// Names and SHA-256 of the libraries that came with a binary that somebody else built.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) libraries: BTreeMap<String, String>,
    pub(crate) built_unix_ms: u64,
    pub(crate) build_ms: u64,
    /// When it came from another machine in a bundle; absent where it was built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) imported_unix_ms: Option<u64>,
    /// Absent in what the first version wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) survey: Option<Survey>,
}

impl Manifest {
    /// As `llamacpp-0.3.36-210c81a1c43d`.
    pub(crate) fn version(&self) -> String {
        version(&self.source, &self.engine_digest)
    }

    /// What is wrong with a planned command line whose flags this build does not know, if it was asked for them.
    pub(crate) fn unknown_flag(&self, argv: &[String]) -> Option<String> {
        let survey = self.survey.as_ref()?;
        survey.refusal(&self.version(), argv)
    }

    /// The definitions it was built with, as `-DNAME=VALUE`; none of a binary that was there already.
    pub(crate) fn build_flags(&self) -> Vec<String> {
        let definitions = self.inputs["definitions"].as_object();
        let flag =
            |(name, value): (&String, &serde_json::Value)| Some(format!("-D{name}={}", value.as_str()?));
        definitions.into_iter().flatten().filter_map(flag).collect()
    }
}

pub(crate) fn version(source: &EngineSource, digest: &str) -> String {
    let twelve: String = digest.chars().take(12).collect();
    format!("llamacpp-{}-{twelve}", crate::source::label(source))
}

/// The licence of a source tree, by the first line of its licence file.
pub(crate) fn licence(tree: &Path) -> Option<String> {
    let text = std::fs::read_to_string(tree.join("LICENSE")).ok()?;
    let first = text.lines().map(str::trim).find(|line| !line.is_empty())?;
    match first {
        "MIT License" | "The MIT License" | "The MIT License (MIT)" => Some("MIT".to_owned()),
        "Apache License" => Some("Apache-2.0".to_owned()),
        // Not guessed: a person reads the file.
        _ => None,
    }
}

/// Milliseconds since 1970.
pub(crate) fn now_unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// EPROV-012, EPROV-013: an engine outlives the version that built it. Each file is as that version wrote it.
    #[test]
    fn a_manifest_of_every_released_version_is_read() {
        let kept = [
            include_str!("../tests/fixtures/released/manifest-v1.json"),
            include_str!("../tests/fixtures/released/manifest-v2.json"),
        ];
        assert_eq!(kept.len(), usize::try_from(SCHEMA).unwrap(), "keep one of each version");
        for (text, version) in kept.into_iter().zip(1..) {
            let manifest: Manifest = serde_json::from_str(text).unwrap();
            assert_eq!(manifest.schema_version, version);
            assert_eq!(manifest.version(), "llamacpp-0.3.36-1efd16540703");
            assert_eq!(manifest.binary_bytes, 15_258_856);
            assert!(manifest.build_flags().contains(&"-DGGML_NATIVE=ON".to_owned()));
            assert_eq!(manifest.survey.is_some(), version >= 2, "the first version did not ask");
        }
    }
}
