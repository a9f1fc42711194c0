//! What a CUDA toolkit works with, from NVIDIA's release notes and installation guides: the oldest
//! driver, the newest GCC that nvcc accepts as its host compiler, the oldest card. Pure.

use std::path::{Path, PathBuf};

use crate::host::Host;

/// Major and minor of a toolkit.
pub(crate) type Version = (u32, u32);

/// `release 13.0, V13.0.88` in what `nvcc --version` prints.
pub(crate) fn toolkit_version(nvcc_says: &str) -> Option<Version> {
    let rest = nvcc_says.split("release ").nth(1)?;
    let mut numbers = rest.split([',', ' ']).next()?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// The oldest driver branch for a toolkit: within a major version, minor ones are compatible.
pub(crate) fn oldest_driver(toolkit: Version) -> Option<u32> {
    match toolkit.0 {
        11 => Some(450),
        12 => Some(525),
        13 => Some(580),
        // Not known here: the build will tell.
        _ => None,
    }
}

/// `580` of `580.65.06`.
pub(crate) fn driver_branch(driver: &str) -> Option<u32> {
    driver.split('.').next()?.parse().ok()
}

/// The newest GCC that this nvcc accepts.
pub(crate) fn newest_gcc(toolkit: Version) -> Option<u32> {
    match toolkit {
        (11, 0) => Some(9),
        (11, 1..=3) => Some(10),
        (11, _) => Some(11),
        (12, 0..=3) => Some(12),
        (12, 4..=7) => Some(13),
        (12, _) => Some(14),
        (13, _) => Some(15),
        _ => None,
    }
}

/// The oldest compute capability this toolkit still builds for, as `75`.
pub(crate) fn oldest_architecture(toolkit: Version) -> Option<u32> {
    match toolkit.0 {
        11 => Some(35),
        12 => Some(50),
        13 => Some(75),
        _ => None,
    }
}

/// The major version in `c++ (Debian 12.2.0-14+deb12u1) 12.2.0`; none for what is not GCC.
pub(crate) fn gcc_major(version_line: &str) -> Option<u32> {
    if version_line.contains("clang") {
        return None;
    }
    // The version stands after the brackets; Arch and Fedora write a date behind it.
    let rest = version_line.rsplit_once(')').map_or(version_line, |(_, rest)| rest);
    rest.split_whitespace().find_map(|word| word.split_once('.')?.0.parse().ok())
}

/// Which C++ compiler nvcc shall use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HostCompiler {
    /// The one that compiles everything else.
    Same,
    /// Another one, because nvcc refuses the first.
    Other(PathBuf),
    /// None that is installed: the newest GCC that would do.
    Missing(u32),
}

/// `default_says` is the version line of the C++ compiler of the build.
pub(crate) fn host_compiler(host: &Host, toolkit: Option<Version>, default_says: &str) -> HostCompiler {
    let (Some(newest), Some(major)) = (toolkit.and_then(newest_gcc), gcc_major(default_says)) else {
        return HostCompiler::Same;
    };
    if major <= newest {
        return HostCompiler::Same;
    }
    // The newest accepted first; older than 9 builds no llama.cpp.
    let other = (9..=newest).rev().find_map(|version| host.find(&format!("g++-{version}")));
    other.map_or(HostCompiler::Missing(newest), HostCompiler::Other)
}

/// The `g++-N` a definition names, for the build.
pub(crate) fn definition(compiler: &HostCompiler) -> Option<(&'static str, &Path)> {
    match compiler {
        HostCompiler::Other(path) => Some(("CMAKE_CUDA_HOST_COMPILER", path)),
        HostCompiler::Same | HostCompiler::Missing(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use config_loader::Env;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn versions_are_read_from_what_the_tools_print() {
        let says = "nvcc: NVIDIA (R) Cuda compiler driver Cuda compilation tools, release 12.4, V12.4.131";
        assert_eq!(toolkit_version(says), Some((12, 4)));
        assert_eq!(toolkit_version("unknown: cannot start"), None);
        assert_eq!(driver_branch("580.65.06"), Some(580));
        assert_eq!(gcc_major("c++ (Debian 12.2.0-14+deb12u1) 12.2.0"), Some(12));
        assert_eq!(gcc_major("g++ (GCC) 16.1.1 20260430"), Some(16));
        assert_eq!(gcc_major("Debian clang version 14.0.6"), None);
    }

    /// EPROV-018
    #[test]
    fn nvcc_gets_the_newest_installed_compiler_that_it_accepts() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::new(&Env::new("/", [("PATH", dir.path().to_str().unwrap())]));
        let at = |line| host_compiler(&host, Some((12, 4)), line);
        assert_eq!(at("c++ (GCC) 13.2.0"), HostCompiler::Same);
        assert_eq!(at("c++ (GCC) 15.2.0"), HostCompiler::Missing(13));
        for version in ["g++-11", "g++-12", "g++-14"] {
            let path = dir.path().join(version);
            std::fs::write(&path, "").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        assert_eq!(at("c++ (GCC) 15.2.0"), HostCompiler::Other(dir.path().join("g++-12")));
        assert_eq!(host_compiler(&host, None, "c++ (GCC) 15.2.0"), HostCompiler::Same, "nothing known");
    }
}
