//! The engine digest: SHA-256 over everything that decides what the binary will be. Same inputs, same
//! digest, no second build.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::gpu::Target;
use crate::helper::{Helper, HelperError, Tool};
use crate::host::Host;
use crate::recipe;
use provisioners_model_provisioner::Cancel;

/// What goes into the digest; also written into the manifest, so that a difference can be explained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Inputs {
    pub(crate) recipe: u32,
    pub(crate) source: String,
    pub(crate) definitions: BTreeMap<String, String>,
    pub(crate) compilers: Vec<String>,
    pub(crate) target: String,
}

impl Inputs {
    pub(crate) fn new(
        source: String,
        definitions: BTreeMap<String, String>,
        compilers: Vec<String>,
        host: &Host,
    ) -> Self {
        let native = definitions.get("GGML_NATIVE").is_some_and(|value| value == "ON");
        let target = if native { host.cpu().to_owned() } else { std::env::consts::ARCH.to_owned() };
        Self { recipe: recipe::VERSION, source, definitions, compilers, target }
    }

    pub(crate) fn digest(&self) -> String {
        // A struct of strings and sorted maps always serialises, and always in the same order.
        sha256(serde_json::to_string(self).unwrap_or_default().as_bytes())
    }
}

/// Hex SHA-256 of a value in memory.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// The compilers, by the version lines they print; a missing one is an empty line here and a
/// preflight error later.
pub(crate) fn compilers(host: &Host, target: &Target, cancel: &Cancel) -> Result<Vec<String>, HelperError> {
    let mut programs = vec![
        (Tool::Compiler, host.find_or("CC", &["cc", "gcc", "clang"])),
        (Tool::Compiler, host.find_or("CXX", &["c++", "g++", "clang++"])),
    ];
    if let Target::Cuda { nvcc, .. } = target {
        programs.push((Tool::Nvcc, Some(nvcc.clone())));
    }
    let version = |(tool, program): (Tool, Option<std::path::PathBuf>)| match program {
        None => Ok(String::new()),
        Some(program) => version_line(host, tool, program, cancel),
    };
    programs.into_iter().map(version).collect()
}

fn version_line(
    host: &Host,
    tool: Tool,
    program: std::path::PathBuf,
    cancel: &Cancel,
) -> Result<String, HelperError> {
    let helper = Helper::new(host, tool, program, cancel).args(["--version"]).limit(Duration::from_secs(10));
    match helper.run(&mut |_| ()) {
        // nvcc has its version in a later line; gcc's licence text is the same for all.
        Ok(lines) if tool == Tool::Nvcc => Ok(lines.join(" ")),
        Ok(lines) => Ok(lines.into_iter().next().unwrap_or_default()),
        Err(HelperError::Cancelled) => Err(HelperError::Cancelled),
        Err(error) => Ok(format!("unknown: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_input_changes_the_digest() {
        let base = Inputs {
            recipe: 1,
            source: "s".into(),
            definitions: BTreeMap::from([("A".into(), "1".into())]),
            compilers: vec!["gcc 12".into()],
            target: "cpu".into(),
        };
        let variants = [
            Inputs { recipe: 2, ..base.clone() },
            Inputs { source: "t".into(), ..base.clone() },
            Inputs { definitions: BTreeMap::from([("A".into(), "2".into())]), ..base.clone() },
            Inputs { compilers: vec!["gcc 13".into()], ..base.clone() },
            Inputs { target: "other".into(), ..base.clone() },
        ];
        assert_eq!(base.digest(), base.clone().digest());
        for variant in variants {
            assert_ne!(variant.digest(), base.digest(), "{variant:?}");
        }
    }
}
