//! The real binaries: ours, built by cargo, and the engine, prepared by engine-provisioner. Both are
//! made once and found again; cargo's lock and the provisioner's lock keep test processes apart.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use wire::PreparedEngine;

use crate::Schema;

/// The packages whose binaries a user runs, and the fake engine. Built together, so that cargo resolves one set of
/// features and compiles the dependencies once.
const PACKAGES: [&str; 4] =
    ["orchestratord", "pool-managerd", "provisioners-engine-provisioner", "stub-llama"];

/// Builds our binaries in the profile of the running test, once, and says where `bin` is.
pub fn built_binary(bin: &str) -> Result<PathBuf> {
    static BUILT: Mutex<bool> = Mutex::new(false);
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    if !*built {
        build()?;
        *built = true;
    }
    // …/target/<profile>/deps/<test> or …/target/<profile>/<program> → …/target/<profile>/<bin>
    let own = std::env::current_exe().context("finding this program's own path")?;
    let profile =
        own.ancestors().skip(1).find(|dir| !dir.ends_with("deps")).context("finding the target directory")?;
    let path = profile.join(bin);
    ensure!(path.is_file(), "cargo built {bin}, but it is not at {}", path.display());
    Ok(path)
}

fn build() -> Result<()> {
    let mut command = stub_llama::cargo();
    command.args(["build", "--quiet", "--bins"]).stdin(Stdio::null());
    command.args(PACKAGES.iter().flat_map(|package| ["-p", package]));
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let status = command.status().context("running cargo build for the binaries")?;
    ensure!(status.success(), "cargo build of the binaries failed");
    Ok(())
}

/// Prepares the engine of `requirements/default.yaml` with the CLI, as a user would before a demo.
/// Takes about ten minutes on two cores the first time; the provisioner's messages go to stderr.
pub fn provisioned() -> Result<PreparedEngine> {
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/../../requirements/default.yaml");
    let output = Command::new(built_binary("engine-provisioner")?)
        .args(["--config", config])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("running engine-provisioner")?;
    ensure!(output.status.success(), "engine-provisioner failed ({}); its messages are above", output.status);
    Schema::PreparedEngine.check_each(&String::from_utf8_lossy(&output.stdout))?;
    serde_json::from_slice(&output.stdout)
        .context("reading the PreparedEngine that engine-provisioner printed")
}
