//! The engine digest: SHA-256 over everything that decides what the binary will be. Same inputs, same
//! digest, no second build.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::cuda::fit::{self, HostCompiler};
use crate::cuda::managed;
use crate::gpu::Target;
use crate::helper::{Helper, HelperError, Tool};
use crate::host::Host;
use crate::recipe;
use provisioners_model_provisioner::{Cancel, FileMemory, FileState};

/// Begins the version line of a compiler that did not say who it is.
const UNKNOWN: &str = "unknown: ";

/// What goes into the digest; also written into the manifest, so that a difference can be explained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

    /// An engine that somebody else built: nothing of this machine went into it but its kind.
    pub(crate) fn prebuilt(source: String) -> Self {
        let target = std::env::consts::ARCH.to_owned();
        Self { recipe: 0, source, definitions: BTreeMap::new(), compilers: Vec::new(), target }
    }

    pub(crate) fn digest(&self) -> String {
        // A struct of strings and sorted maps always serialises, and always in the same order.
        sha256(serde_json::to_string(self).unwrap_or_default().as_bytes())
    }
}

/// Whether a compiler's version line says nothing.
pub(crate) fn is_unknown(line: &str) -> bool {
    line.is_empty() || line.starts_with(UNKNOWN)
}

/// Hex SHA-256 of a value in memory.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// The compilers, by the version lines they print; a missing one is an empty line here and a
/// preflight error later.
pub(crate) fn compilers(
    host: &Host,
    target: &Target,
    cache: &Path,
    writes: bool,
    cancel: &Cancel,
) -> Result<Compilers, HelperError> {
    let known = FileMemory::new(cache.join("engines/compilers"));
    let known = if writes { known } else { known.read_only() };
    let version = |tool: Tool, program: Option<PathBuf>| match program {
        None => Ok(String::new()),
        Some(program) => known_version_line(host, tool, program, &known, cancel),
    };
    let mut lines = vec![
        version(Tool::Compiler, host.find_or("CC", &["cc", "gcc", "clang"]))?,
        version(Tool::Compiler, host.find_or("CXX", &["c++", "g++", "clang++"]))?,
    ];
    let Target::Cuda { nvcc, .. } = target else { return Ok(Compilers { lines, cuda: None }) };
    let says = match managed::is_managed(cache, nvcc) {
        true => managed::version_line(),
        false => version(Tool::Nvcc, Some(nvcc.clone()))?,
    };
    let toolkit = fit::toolkit_version(&says);
    let host_compiler = fit::host_compiler(host, toolkit, &lines[1]);
    lines.push(says);
    if let HostCompiler::Other(path) = &host_compiler {
        lines.push(version(Tool::Compiler, Some(path.clone()))?);
    }
    Ok(Compilers { lines, cuda: Some(Cuda { toolkit, host_compiler }) })
}

/// Who compiles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Compilers {
    /// What each says about itself.
    pub(crate) lines: Vec<String>,
    /// For a CUDA build.
    pub(crate) cuda: Option<Cuda>,
}

/// What follows from the CUDA compiler's version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cuda {
    pub(crate) toolkit: Option<fit::Version>,
    pub(crate) host_compiler: HostCompiler,
}

/// A compiler's version line is remembered with the state of its file: two compilers that say who
/// they are cost 12 ms, a third of a small engine's whole start. A script may stand before any
/// compiler, so only a program that is one itself is remembered.
fn known_version_line(
    host: &Host,
    tool: Tool,
    program: PathBuf,
    known: &FileMemory,
    cancel: &Cancel,
) -> Result<String, HelperError> {
    let state = program
        .canonicalize()
        .ok()
        .filter(|path| is_compiler_itself(path))
        .and_then(|path| FileState::of(&path).ok());
    if let Some(line) = state.as_ref().and_then(|state| known.recall(state)) {
        return Ok(line);
    }
    let line = version_line(host, tool, program, cancel)?;
    if let Some(state) = state.filter(|_| !line.starts_with(UNKNOWN)) {
        known.remember(&state, &line);
    }
    Ok(line)
}

/// An ELF program that is not one of the launchers that stand in for another compiler.
fn is_compiler_itself(program: &Path) -> bool {
    let mut magic = [0; 4];
    let elf =
        File::open(program).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == *b"\x7fELF";
    let launchers = ["ccache", "sccache", "distcc", "icecc"];
    elf && !launchers.iter().any(|launcher| program.file_name().is_some_and(|name| name == *launcher))
}

fn version_line(host: &Host, tool: Tool, program: PathBuf, cancel: &Cancel) -> Result<String, HelperError> {
    let helper = Helper::new(host, tool, program, cancel).args(["--version"]).limit(Duration::from_secs(10));
    match helper.run(&mut |_| ()) {
        // nvcc has its version in a later line; gcc's licence text is the same for all.
        Ok(lines) if tool == Tool::Nvcc => Ok(lines.join(" ")),
        Ok(lines) => Ok(lines.into_iter().next().unwrap_or_default()),
        Err(HelperError::Cancelled) => Err(HelperError::Cancelled),
        Err(error) => Ok(format!("{UNKNOWN}{error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A compiler that writes down each time it is asked who it is.
    fn compiler(dir: &Path, name: &str, content: &[u8]) -> PathBuf {
        use std::os::unix::fs::PermissionsExt as _;
        let path = dir.join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn a_compiler_is_asked_once_and_again_when_its_file_changed() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::new(&config_loader::Env::new("/", [("PATH", "/bin")]));
        let known = FileMemory::new(dir.path().join("known"));
        // Prints its name and version, as every ELF program of coreutils does.
        let program = compiler(dir.path(), "true-compiler", &std::fs::read("/bin/true").unwrap());
        let ask =
            || known_version_line(&host, Tool::Compiler, program.clone(), &known, &Cancel::new()).unwrap();
        let line = ask();
        let state = FileState::of(&program.canonicalize().unwrap()).unwrap();
        assert_eq!(known.recall(&state), Some(line.clone()));
        known.remember(&state, "what was remembered");
        assert_eq!(ask(), "what was remembered", "it is not asked again");
        std::fs::write(&program, std::fs::read("/bin/false").unwrap()).unwrap();
        assert_ne!(ask(), "what was remembered", "another file is another compiler");
    }

    #[test]
    fn a_script_or_launcher_in_front_of_a_compiler_is_asked_each_time() {
        let dir = tempfile::tempdir().unwrap();
        let elf = std::fs::read("/bin/true").unwrap();
        assert!(is_compiler_itself(&compiler(dir.path(), "gcc", &elf)));
        assert!(!is_compiler_itself(&compiler(dir.path(), "ccache", &elf)));
        assert!(!is_compiler_itself(&compiler(dir.path(), "cc", b"#!/bin/sh\nexec gcc \"$@\"\n")));
        assert!(!is_compiler_itself(&dir.path().join("absent")));
    }

    /// EPROV-006
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
