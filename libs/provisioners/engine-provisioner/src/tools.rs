//! CMake and Ninja: the machine's own when they are good enough, else pinned versions from the Python
//! package index, in a virtual environment inside the cache. No root, nothing outside the cache.

use std::path::{Path, PathBuf};
use std::time::Duration;

use provisioners_model_provisioner::Cancel;

use crate::error::EnsureError;
use crate::helper::{Helper, HelperError, Tool};
use crate::host::Host;
use crate::observer::Step;
use crate::store;

/// Pinned; verified to configure the pinned source tree.
const CMAKE: &str = "4.4.4";
const NINJA: &str = "1.13.2";
/// What llama.cpp's CMakeLists.txt asks for.
const OLDEST_CMAKE: (u32, u32) = (3, 14);

/// The two programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tools {
    pub(crate) cmake: PathBuf,
    pub(crate) ninja: PathBuf,
}

/// Why there are no tools.
#[derive(Debug)]
pub(crate) enum ToolsError {
    Helper(HelperError),
    Ensure(EnsureError),
    /// They would have to be installed, and the network is not to be used.
    Offline,
}

impl From<EnsureError> for ToolsError {
    fn from(error: EnsureError) -> Self {
        Self::Ensure(error)
    }
}

/// Whether both programs are on the path, whatever their versions.
pub(crate) fn on_path(host: &Host) -> bool {
    host.find("cmake").is_some() && host.find("ninja").is_some()
}

/// Whether the cache has them.
pub(crate) fn installed(cache: &Path) -> bool {
    venv(cache).join(COMPLETE).exists()
}

const COMPLETE: &str = ".complete";

fn venv(cache: &Path) -> PathBuf {
    cache.join(format!("tools/cmake-{CMAKE}-ninja-{NINJA}"))
}

/// Finds or installs them.
pub(crate) fn ensure(
    host: &Host,
    cache: &Path,
    step: &Step<'_>,
    offline: bool,
    cancel: &Cancel,
) -> Result<Tools, ToolsError> {
    if let (Some(cmake), Some(ninja)) = (host.find("cmake"), host.find("ninja"))
        && version(host, &cmake, cancel).is_some_and(|version| version >= OLDEST_CMAKE)
    {
        return Ok(Tools { cmake, ninja });
    }
    let dir = venv(cache);
    if !installed(cache) {
        if offline {
            return Err(ToolsError::Offline);
        }
        let on_wait = || step.doing("waiting for another process that installs CMake and Ninja");
        let _lock = store::lock(&cache.join("tools/.lock"), &on_wait, cancel)?;
        if !installed(cache) {
            step.doing(format!("installing CMake {CMAKE} and Ninja {NINJA} into the cache"));
            install(host, cache, &dir, cancel)?;
        }
    }
    Ok(Tools { cmake: dir.join("bin/cmake"), ninja: dir.join("bin/ninja") })
}

fn install(host: &Host, cache: &Path, dir: &Path, cancel: &Cancel) -> Result<(), ToolsError> {
    let log = cache.join("tools/install.log");
    let python = host.find("python3").unwrap_or_else(|| PathBuf::from("python3"));
    let run = |program: PathBuf, args: &[&str]| {
        let helper =
            Helper::new(host, Tool::Python, program, cancel).log(&log).limit(Duration::from_secs(900));
        helper.args(args).run(&mut |_| ()).map_err(ToolsError::Helper)
    };
    // `--clear`: half of an interrupted installation may be there.
    run(python, &["-m", "venv", "--clear", &dir.to_string_lossy()])?;
    let wanted = [format!("cmake=={CMAKE}"), format!("ninja=={NINJA}")];
    let mut args =
        vec!["-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--only-binary", ":all:"];
    args.extend(wanted.iter().map(String::as_str));
    run(dir.join("bin/python"), &args)?;
    let marker = dir.join(COMPLETE);
    std::fs::write(&marker, "").map_err(|source| {
        ToolsError::Ensure(EnsureError::Cache { action: "write", path: marker.clone(), source })
    })
}

fn version(host: &Host, cmake: &Path, cancel: &Cancel) -> Option<(u32, u32)> {
    let helper =
        Helper::new(host, Tool::Cmake, cmake, cancel).args(["--version"]).limit(Duration::from_secs(20));
    parse_version(helper.run(&mut |_| ()).ok()?.first()?)
}

fn parse_version(line: &str) -> Option<(u32, u32)> {
    let mut numbers = line.rsplit(' ').next()?.split(['.', '-']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        assert_eq!(parse_version("cmake version 3.9.6"), Some((3, 9)));
        assert!(parse_version("cmake version 3.9.6").unwrap() < OLDEST_CMAKE);
        assert!(parse_version("cmake version 3.30.1-dirty").unwrap() >= OLDEST_CMAKE);
        assert_eq!(parse_version("garbage"), None);
    }
}
