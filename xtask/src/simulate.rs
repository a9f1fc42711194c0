//! `cargo xtask simulate`: dispatch's own simulation, which is a test of its crate because it needs
//! what the crate shows nobody, in a release build and with its tables shown.

use anyhow::{Context, Result, ensure};

pub(crate) fn run() -> Result<()> {
    let status = stub_llama::cargo()
        .args(["test", "--quiet", "--release", "-p", "dispatch", "--lib", "simulation::"])
        .args(["--", "--nocapture", "--test-threads", "1"])
        .current_dir(crate::root())
        .status()
        .context("running dispatch's simulation")?;
    ensure!(status.success(), "a bar does not hold; the message above says which");
    Ok(())
}
