//! The CUDA toolkit a build uses: the machine's, or a pinned one from the Python package index in the
//! cache; and what has to fit together for either: driver, toolkit, cards, host compiler.

mod compile;
pub(crate) mod fit;
pub(crate) mod managed;
pub(crate) mod runtime;

use std::fmt;
use std::path::{Path, PathBuf};

use wire::config::ToolkitPolicy;

use crate::host::Host;

/// Why there is no way to a compiler. `Display` is what that adds to saying so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NoCompiler {
    Absent,
    /// For the managed toolkit; as it is loaded.
    OldDriver(String),
}

impl fmt::Display for NoCompiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => Ok(()),
            Self::OldDriver(driver) => {
                let oldest = managed::oldest_driver();
                write!(f, ", and the managed toolkit needs the driver {oldest} or newer: {driver} is loaded")
            }
        }
    }
}

/// The compiler of the toolkit that `policy` chooses, there already or to be installed. Without one the
/// pool's GPU policy says what that means. The managed one is taken where it is named, whatever the driver:
/// what is built already needs none of it, and preflight refuses the rest.
/// `driver` is what the cards say of theirs.
pub(crate) fn nvcc(
    policy: ToolkitPolicy,
    host: &Host,
    cache: &Path,
    driver: Option<&str>,
) -> Result<PathBuf, NoCompiler> {
    // In WSL and some containers the kernel does not show it.
    let driver = driver.map(str::to_owned).or_else(|| host.nvidia_driver());
    let managed = || match managed::too_old(driver.as_deref()) {
        Some(driver) => Err(NoCompiler::OldDriver(driver.to_owned())),
        None if managed::is_for_this_machine() => Ok(managed::nvcc(cache)),
        None => Err(NoCompiler::Absent),
    };
    match policy {
        ToolkitPolicy::System => system(host).ok_or(NoCompiler::Absent),
        ToolkitPolicy::Managed => Ok(managed::nvcc(cache)),
        ToolkitPolicy::Auto => system(host).map_or_else(managed, Ok),
    }
}

fn system(host: &Host) -> Option<PathBuf> {
    let installed = host.var("CUDA_PATH").map(|root| PathBuf::from(root).join("bin/nvcc"));
    installed.filter(|nvcc| nvcc.is_file()).or_else(|| host.find("nvcc"))
}
