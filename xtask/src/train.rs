//! `cargo xtask train-haiku`: runs the trainer in release, where it belongs.

use anyhow::{Context, Result, ensure};

/// Where `builtin:haiku` takes its file from.
const HAIKU: &str = "libs/provisioners/model-provisioner/models/haiku.gguf";

pub(crate) fn haiku() -> Result<()> {
    let status = stub_llama::cargo()
        .args(["run", "--release", "-p", "haiku-trainer", "--", "train", "--out", HAIKU])
        .current_dir(crate::root())
        .status()
        .context("starting cargo to run the trainer")?;
    ensure!(status.success(), "the trainer failed ({status}); its messages are above");
    Ok(())
}
