//! The real binaries: ours, built by cargo, and the engine, prepared by engine-provisioner. Both are
//! made once and found again; cargo's lock and the provisioner's lock keep test processes apart.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use wire::PreparedEngine;

/// Builds one of our binaries in the profile of the running test and says where it is.
pub fn built_binary(package: &str, bin: &str) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "-p", package, "--bin", bin]).stdin(Stdio::null());
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let status = command.status().with_context(|| format!("running cargo build for {bin}"))?;
    ensure!(status.success(), "cargo build of {bin} failed");
    // …/target/<profile>/deps/<test> → …/target/<profile>/<bin>
    let test = std::env::current_exe().context("finding this test's own path")?;
    let profile = test.ancestors().nth(2).context("finding the target directory")?;
    let path = profile.join(bin);
    ensure!(path.is_file(), "cargo built {bin}, but it is not at {}", path.display());
    Ok(path)
}

/// Prepares the engine of `requirements/default.yaml` with the CLI, as a user would before a demo.
/// Takes about ten minutes on two cores the first time; the provisioner's messages go to stderr.
pub fn provisioned() -> Result<PreparedEngine> {
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/../../requirements/default.yaml");
    let output = Command::new(built_binary("provisioners-engine-provisioner", "engine-provisioner")?)
        .args(["--config", config])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("running engine-provisioner")?;
    ensure!(output.status.success(), "engine-provisioner failed ({}); its messages are above", output.status);
    serde_json::from_slice(&output.stdout)
        .context("reading the PreparedEngine that engine-provisioner printed")
}
