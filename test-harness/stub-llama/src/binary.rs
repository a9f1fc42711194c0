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
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
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
