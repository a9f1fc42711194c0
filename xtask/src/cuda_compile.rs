//! `cargo xtask cuda-compile`: compiles and links llama.cpp for CUDA with the managed toolkit, on a machine
//! without any card. It takes long: some 350 steps, hours on two cores. An interrupted run goes on.

use std::io::Write as _;

use anyhow::{Context, Result, ensure};
use config_loader::Env;
use provisioners_engine_provisioner::{Cancel, EngineProvisioner, Observer, cancel_on_signal};
use wire::PreparationStep;
use wire::config::PoolConfig;

/// What is done, a line each.
pub(crate) struct Lines;
impl Observer for Lines {
    fn step(&self, step: &PreparationStep) {
        // A closed stderr is the reader's choice.
        let _ = writeln!(std::io::stderr(), "{}", step.description);
    }
}

/// `cmake_flags` as in a pool's `provisioning.cmake_flags`.
pub(crate) fn run(architecture: &str, cmake_flags: Vec<String>) -> Result<()> {
    let digits = architecture.bytes().all(|b| b.is_ascii_digit());
    ensure!(digits && architecture.len() >= 2, "a compute capability is written as 86, not {architecture:?}");
    let env = Env::from_process()?;
    let config = config_loader::load(None, &env)?.config;
    let provisioner = EngineProvisioner::new(&config.paths.cache, &env);
    let mut pool = PoolConfig::haiku();
    pool.provisioning.cmake_flags = cmake_flags;
    let cancel = Cancel::new();
    cancel_on_signal(&cancel).context("listening for signals")?;
    let binary = provisioner.compile_for_cuda(&pool, architecture, &Lines, &cancel)?;
    let bytes = std::fs::read(&binary).with_context(|| format!("reading {}", binary.display()))?;
    let section = b"\0.nv_fatbin\0";
    let linked = bytes.windows(section.len()).any(|window| window == section);
    ensure!(linked, "{} was linked without any CUDA code", binary.display());
    writeln!(std::io::stdout(), "{} has CUDA code for sm_{architecture}", binary.display())?;
    Ok(())
}
