//! The CUDA toolkit a build uses: the machine's, or a pinned one from the Python package index in the
//! cache; and what has to fit together for either: driver, toolkit, cards, host compiler.

mod compile;
pub(crate) mod fit;
pub(crate) mod managed;
pub(crate) mod runtime;

use std::path::{Path, PathBuf};

use wire::config::ToolkitPolicy;

use crate::host::Host;

/// The compiler of the toolkit that `policy` chooses, there already or to be installed. None: there is
/// no way to one, and the pool's GPU policy says what that means.
/// `driver` is what the cards say of theirs.
pub(crate) fn nvcc(
    policy: ToolkitPolicy,
    host: &Host,
    cache: &Path,
    driver: Option<&str>,
) -> Option<PathBuf> {
    // In WSL and some containers the kernel does not show it.
    let driver = driver.map(str::to_owned).or_else(|| host.nvidia_driver());
    let managed = || managed::supported(driver.as_deref()).then(|| managed::nvcc(cache));
    match policy {
        ToolkitPolicy::System => system(host),
        ToolkitPolicy::Managed => Some(managed::nvcc(cache)),
        ToolkitPolicy::Auto => system(host).or_else(managed),
    }
}

fn system(host: &Host) -> Option<PathBuf> {
    let installed = host.var("CUDA_PATH").map(|root| PathBuf::from(root).join("bin/nvcc"));
    installed.filter(|nvcc| nvcc.is_file()).or_else(|| host.find("nvcc"))
}
