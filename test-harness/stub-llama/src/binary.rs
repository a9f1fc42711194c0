//! Finds the program for tests of other crates: cargo tells its path only to tests of its own
//! package. Builds it when it is missing or older than its sources.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;
use std::{fs, io};

/// Why there is no binary.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no stub-llama binary: {0}; run cargo build -p stub-llama")]
pub struct BinaryError(String);

/// The path of an up-to-date `stub-llama`, beside the test that asks. Asks cargo at most once a
/// process, and not at all when the binary is newer than the sources.
pub fn binary() -> Result<PathBuf, BinaryError> {
    static FOUND: OnceLock<Result<PathBuf, BinaryError>> = OnceLock::new();
    FOUND.get_or_init(find).clone()
}

/// A cargo that sees what it would see from a shell.
///
/// To what it runs, cargo says in variables which package that is. Build scripts ask for the same names
/// (that of `ring` does): with one of them changed they and all that stands on them are built anew, when
/// cargo runs below cargo, and again when it next does not.
#[must_use]
pub fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let says_which = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(says_which)) {
        cargo.env_remove(name);
    }
    cargo
}

fn find() -> Result<PathBuf, BinaryError> {
    let failed = |why: String| BinaryError(why);
    let exe = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
    // target/<profile>/deps/<test> or target/<profile>/<program>
    let mut profile_dir = exe.parent().unwrap_or(Path::new("."));
    if profile_dir.ends_with("deps") {
        profile_dir = profile_dir.parent().unwrap_or(profile_dir);
    }
    let binary = profile_dir.join(format!("stub-llama{}", std::env::consts::EXE_SUFFIX));
    let fresh = modified(&binary).is_ok_and(|built| newest_source().is_ok_and(|source| built >= source));
    if !fresh {
        build(profile_dir).map_err(failed)?;
    }
    if binary.is_file() { Ok(binary) } else { Err(failed(format!("{} is missing", binary.display()))) }
}

fn build(profile_dir: &Path) -> Result<(), String> {
    let name = profile_dir.file_name().and_then(|name| name.to_str()).unwrap_or("debug");
    let profile = if name == "debug" { "dev" } else { name };
    let target = profile_dir.parent().unwrap_or(profile_dir);
    let output = cargo()
        .args(["build", "--quiet", "--package", "stub-llama", "--bin", "stub-llama", "--profile", profile])
        .arg("--target-dir")
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .map_err(|error| format!("cargo does not start: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

fn newest_source() -> io::Result<SystemTime> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut newest = modified(&package.join("Cargo.toml"))?;
    for entry in fs::read_dir(package.join("src"))? {
        newest = newest.max(modified(&entry?.path())?);
    }
    Ok(newest)
}

fn modified(path: &Path) -> io::Result<SystemTime> {
    fs::metadata(path)?.modified()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cargo_below_cargo_is_not_told_of_a_package() {
        let cargo = cargo();
        let hidden: Vec<_> =
            cargo.get_envs().filter(|(_, value)| value.is_none()).map(|(name, _)| name).collect();
        for name in ["CARGO_MANIFEST_DIR", "CARGO_PKG_NAME"] {
            assert!(std::env::var_os(name).is_some(), "cargo tells tests {name} no more");
            assert!(hidden.contains(&name.as_ref()), "{name} is passed on");
        }
        assert!(cargo.get_envs().all(|(name, _)| name != "CARGO_HOME"), "{hidden:?}");
    }
}
