//! CMake and what it drives: the machine's own when they are good enough, else pinned versions of CMake and
//! Ninja from the Python package index, in a virtual environment inside the cache; where that is not to be
//! had, make. No root, nothing outside the cache.

use std::path::{Path, PathBuf};
use std::time::Duration;

use provisioners_model_provisioner::Cancel;

use crate::error::EnsureError;
use crate::helper::{Helper, HelperError, Tool};
use crate::host::Host;
use crate::observer::Step;
use crate::store;

/// Pinned; verified to configure the pinned source tree.
pub(crate) const CMAKE: &str = "4.4.4";
pub(crate) const NINJA: &str = "1.13.2";
/// What llama.cpp's CMakeLists.txt asks for.
pub(crate) const OLDEST_CMAKE: (u32, u32) = (3, 14);
/// What comes over the network for both, and what they take in the cache.
pub(crate) const DOWNLOAD_MIB: u64 = 29;
pub(crate) const DISK_MIB: u64 = 113;

/// What builds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tools {
    pub(crate) cmake: PathBuf,
    pub(crate) builder: Builder,
}

/// What CMake writes its files for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Builder {
    Ninja(PathBuf),
    Make(PathBuf),
}

impl Builder {
    /// As CMake calls it.
    pub(crate) fn generator(&self) -> &'static str {
        match self {
            Self::Ninja(_) => "Ninja",
            Self::Make(_) => "Unix Makefiles",
        }
    }

    /// CMake refuses a directory that it configured for the other one.
    pub(crate) fn directory(&self) -> &'static str {
        match self {
            Self::Ninja(_) => "build",
            Self::Make(_) => "build-make",
        }
    }

    pub(crate) fn program(&self) -> &Path {
        match self {
            Self::Ninja(path) | Self::Make(path) => path,
        }
    }
}

/// What there is of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct BuildTools {
    pub(crate) cmake: Option<Cmake>,
    pub(crate) ninja: Option<PathBuf>,
    pub(crate) make: Option<PathBuf>,
    /// The pinned ones, where they are installed.
    pub(crate) cached: Option<Tools>,
}

/// The machine's CMake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cmake {
    pub(crate) path: PathBuf,
    pub(crate) version: String,
}

/// Which of them build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Choice {
    /// Nothing has to be installed.
    Ready(Tools),
    /// The pinned ones are installed, and these are used where that cannot be.
    Install(Option<Tools>),
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

impl ToolsError {
    fn is_cancelled(&self) -> bool {
        matches!(self, Self::Helper(HelperError::Cancelled) | Self::Ensure(EnsureError::Cancelled))
    }
}

impl Cmake {
    pub(crate) fn is_new_enough(&self) -> bool {
        parse_version(&self.version).is_some_and(|version| version >= OLDEST_CMAKE)
    }
}

impl BuildTools {
    /// Starts CMake once for its version.
    pub(crate) fn look(host: &Host, cache: &Path, cancel: &Cancel) -> Self {
        let cmake = host.find("cmake").map(|path| Cmake { version: version(host, &path, cancel), path });
        let dir = venv(cache);
        let cached =
            || Tools { cmake: dir.join("bin/cmake"), builder: Builder::Ninja(dir.join("bin/ninja")) };
        let cached = dir.join(COMPLETE).exists().then(cached);
        Self { cmake, ninja: host.find("ninja"), make: host.find("make"), cached }
    }

    /// Ninja before make: it is faster where little is left to do. Pure.
    pub(crate) fn choice(&self) -> Choice {
        let with = |builder: Option<Builder>| {
            let cmake = self.cmake.as_ref().filter(|cmake| cmake.is_new_enough())?;
            Some(Tools { cmake: cmake.path.clone(), builder: builder? })
        };
        let own = with(self.ninja.clone().map(Builder::Ninja));
        match own.or_else(|| self.cached.clone()) {
            Some(tools) => Choice::Ready(tools),
            None => Choice::Install(with(self.make.clone().map(Builder::Make))),
        }
    }
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
    let instead = match BuildTools::look(host, cache, cancel).choice() {
        Choice::Ready(tools) => return Ok(tools),
        Choice::Install(instead) => instead,
    };
    match (pinned(host, cache, step, offline, cancel), instead) {
        (Err(error), Some(tools)) if !error.is_cancelled() => {
            step.doing("Ninja is neither on this machine nor to be had: building with make");
            Ok(tools)
        }
        (outcome, _) => outcome,
    }
}

fn pinned(
    host: &Host,
    cache: &Path,
    step: &Step<'_>,
    offline: bool,
    cancel: &Cancel,
) -> Result<Tools, ToolsError> {
    if offline {
        return Err(ToolsError::Offline);
    }
    let dir = venv(cache);
    let on_wait = || step.doing("waiting for another process that installs CMake and Ninja");
    let _lock = store::lock(&cache.join("tools/.lock"), &on_wait, cancel)?;
    if !dir.join(COMPLETE).exists() {
        step.doing(format!("installing CMake {CMAKE} and Ninja {NINJA} into the cache"));
        install(host, cache, &dir, cancel)?;
    }
    Ok(Tools { cmake: dir.join("bin/cmake"), builder: Builder::Ninja(dir.join("bin/ninja")) })
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

/// The last word of its first line; empty when it does not answer.
fn version(host: &Host, cmake: &Path, cancel: &Cancel) -> String {
    let helper =
        Helper::new(host, Tool::Cmake, cmake, cancel).args(["--version"]).limit(Duration::from_secs(20));
    let lines = helper.run(&mut |_| ()).unwrap_or_default();
    lines.first().and_then(|line| line.rsplit(' ').next()).unwrap_or_default().to_owned()
}

fn parse_version(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split(['.', '-']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        let cmake = |version: &str| Cmake { path: "/c".into(), version: version.to_owned() };
        assert_eq!(parse_version("3.9.6"), Some((3, 9)));
        assert!(!cmake("3.9.6").is_new_enough() && cmake("3.30.1-dirty").is_new_enough());
        assert!(!cmake("garbage").is_new_enough() && !cmake("").is_new_enough());
    }

    /// EPROV-027
    #[test]
    fn ninja_is_preferred_wherever_it_comes_from_and_make_needs_no_network() {
        let cmake = |version: &str| Some(Cmake { path: "/c".into(), version: version.to_owned() });
        let tools = |cmake: &str, builder| Tools { cmake: cmake.into(), builder };
        let (ninja, make) = (|| Builder::Ninja("/n".into()), || Builder::Make("/m".into()));
        let all = BuildTools {
            cmake: cmake("3.14.0"),
            ninja: Some("/n".into()),
            make: Some("/m".into()),
            cached: Some(tools("/cached", Builder::Ninja("/cached".into()))),
        };
        assert_eq!(all.choice(), Choice::Ready(tools("/c", ninja())));
        let old = BuildTools { cmake: cmake("3.13.9"), ..all.clone() };
        assert_eq!(Choice::Ready(old.cached.clone().unwrap()), old.choice());
        let fresh = BuildTools { ninja: None, cached: None, ..all };
        assert_eq!(fresh.choice(), Choice::Install(Some(tools("/c", make()))));
        let nothing_new = BuildTools { cmake: cmake("3.13.9"), ..fresh.clone() };
        assert_eq!(nothing_new.choice(), Choice::Install(None));
        assert_eq!(BuildTools { make: None, ..fresh }.choice(), Choice::Install(None));
    }
}
