//! What a build needs from the machine, checked before anything is fetched and reported all at once: what
//! was found, or what to install, and the key of the configuration that changes it.

mod cuda;
mod look;
mod report;
mod room;

use std::path::Path;

use wire::config::{EngineSource, ProvisioningConfig};

pub(crate) use look::{Found, look};
pub use report::{Check, Finding, Report};
pub(crate) use room::objects;

use crate::gpu::Target;
use crate::host::Distro;
use crate::key::{self, Compilers};
use crate::tools::{self, Builder, Choice};
use look::{Program, Python};
use room::Room;

#[cfg(test)]
mod tests;

const SOURCES: &str = "provisioning.sources";
const CACHE: &str = "paths.cache";

/// What is to be built.
pub(crate) struct Needs<'a> {
    pub(crate) config: &'a ProvisioningConfig,
    pub(crate) target: &'a Target,
    pub(crate) compilers: &'a Compilers,
}

impl Needs<'_> {
    fn lists(&self, kind: fn(&EngineSource) -> bool) -> bool {
        self.config.sources.iter().any(kind)
    }

    fn sdist(&self) -> bool {
        self.lists(|source| matches!(source, EngineSource::Sdist(_)))
    }
}

/// Names of packages and the command that installs them, in the words of one distribution.
struct Words(Distro);

impl Words {
    fn pick(&self, apt: &'static str, pacman: &'static str, dnf: &'static str) -> &'static str {
        match self.0 {
            Distro::Debian | Distro::Other => apt,
            Distro::Arch => pacman,
            Distro::Fedora => dnf,
        }
    }

    /// What a package manager that is known here can be asked for.
    fn packages(&self, names: &'static str) -> &'static str {
        if self.0 == Distro::Other { "" } else { names }
    }

    fn install(&self, packages: &str) -> String {
        match self.0 {
            Distro::Debian => format!("sudo apt-get install {packages}"),
            Distro::Arch => format!("sudo pacman -S {packages}"),
            Distro::Fedora => format!("sudo dnf install {packages}"),
            Distro::Other => format!("install the packages that Debian calls {packages}"),
        }
    }
}

/// Everything that these sources need: each with what was found or what to do, and the key that changes it. Pure.
pub(crate) fn report(found: &Found, needs: &Needs<'_>, distro: Distro, cache: &Path) -> Report {
    let (mut report, words) = (Report::default(), Words(distro));
    git(&mut report, found, needs, &words);
    build_tools(&mut report, found);
    let line = |at: usize| needs.compilers.lines.get(at).map_or("", String::as_str);
    compiler(&mut report, "C compiler", "CC", found.c.as_deref(), line(0), &words);
    compiler(&mut report, "C++ compiler", "CXX", found.cxx.as_deref(), line(1), &words);
    python(&mut report, found, needs, &words);
    disk(&mut report, found, needs.target, cache);
    cuda::lines(&mut report, found, needs, distro, cache);
    report
}

fn git(report: &mut Report, found: &Found, needs: &Needs<'_>, words: &Words) {
    let listed = needs.lists(|source| matches!(source, EngineSource::Git(_)));
    // With another source after it, a missing git is only one failed attempt.
    let others = needs.lists(|source| matches!(source, EngineSource::Sdist(_) | EngineSource::Archive(_)));
    match (&found.git, listed, others) {
        (Some(git), _, _) => report.found("git", at(git), SOURCES),
        (None, false, _) => {
            report.handled("git", "not on this machine, and no `git` source is listed", SOURCES)
        }
        (None, true, true) => {
            report.handled("git", "not on this machine: the `git` source is passed over", SOURCES);
        }
        (None, true, false) => {
            let remedy = format!("{}, or list another source", words.install("git"));
            report.missing_one("git", "to fetch the `git` source", remedy, words.packages("git"), SOURCES);
        }
    }
}

fn build_tools(report: &mut Report, found: &Found) {
    let oldest = format!("{}.{}", tools::OLDEST_CMAKE.0, tools::OLDEST_CMAKE.1);
    let cmake = format!("CMake {oldest} or newer");
    let builder = "Ninja or make";
    let own = found.tools.cmake.as_ref();
    let own_says = || own.map_or_else(String::new, |own| format!("{} ({})", own.version, own.path.display()));
    let make = |path: &Path| format!("make {} ({})", found.make_says, path.display());
    let chosen = match found.tools.choice() {
        Choice::Ready(tools) => Some(tools),
        Choice::Install(instead) if !matches!(found.python, Some(Python::Usable(_))) => instead,
        Choice::Install(_) => None,
    };
    match chosen {
        Some(tools) if found.tools.cached.as_ref() == Some(&tools) => {
            report.found(cmake, format!("{} (in the cache)", tools::CMAKE), SOURCES);
            report.found(builder, format!("Ninja {} (in the cache)", tools::NINJA), SOURCES);
        }
        Some(tools) => {
            report.found(cmake, own_says(), SOURCES);
            let says = match &tools.builder {
                Builder::Ninja(path) => format!("Ninja {} ({})", found.ninja_says, path.display()),
                Builder::Make(path) => make(path),
            };
            report.found(builder, says, SOURCES);
        }
        None => {
            let here = match own {
                None => "not on this machine".to_owned(),
                Some(own) if own.is_new_enough() => format!("{} without Ninja", own_says()),
                Some(_) => format!("{} is too old", own_says()),
            };
            let (version, mib) = (tools::CMAKE, tools::DOWNLOAD_MIB);
            let how = format!("{here}; pip installs {version} into the cache ({mib} MiB to fetch)");
            report.handled(cmake, how, SOURCES);
            let how = format!("pip installs Ninja {} into the cache with it", tools::NINJA);
            report.handled(builder, how, SOURCES);
        }
    }
}

fn compiler(report: &mut Report, what: &str, variable: &str, path: Option<&Path>, says: &str, words: &Words) {
    match path {
        Some(path) if !key::is_unknown(says) => {
            report.found(what, format!("{says} ({})", path.display()), SOURCES);
        }
        other => {
            let gcc = words.pick("build-essential", "base-devel", "gcc gcc-c++");
            let remedy = format!(
                "{}, set {variable}, or list an existing binary under `{SOURCES}` as `path`",
                words.install(gcc)
            );
            let why = match other {
                Some(path) => format!("{} does not tell its version: {says}", path.display()),
                None => "to build the engine".to_owned(),
            };
            report.missing_one(what, why, remedy, words.packages(gcc), SOURCES);
        }
    }
}

fn python(report: &mut Report, found: &Found, needs: &Needs<'_>, words: &Words) {
    let choice = found.tools.choice();
    let brings_tools = matches!(choice, Choice::Install(_));
    // Where make can take over, no tools have to be brought.
    let must_bring = matches!(choice, Choice::Install(None));
    let what = "python3 with pip";
    let python = match &found.python {
        None => return,
        Some(Python::Usable(python)) => return report.found(what, at(python), SOURCES),
        Some(python) => python,
    };
    let why = if must_bring {
        "to install CMake and Ninja into the cache"
    } else if found.own_toolkit {
        "to install the CUDA toolkit into the cache"
    } else {
        "to fetch the `sdist` source"
    };
    let needed = must_bring || found.own_toolkit || needs.sdist();
    let (what, needed) = match python {
        Python::WithoutVenv => ("venv for python3", must_bring),
        Python::WithoutPip => ("pip for python3", needed),
        Python::Absent | Python::Usable(_) => (what, needed),
    };
    if !needed {
        let how = if brings_tools {
            "not usable: make builds instead"
        } else {
            "without venv, which nothing needs"
        };
        return report.handled(what, how, SOURCES);
    }
    let packages = words.pick("python3 python3-pip python3-venv", "python python-pip", "python3 python3-pip");
    let cmake = words.pick("cmake ninja-build", "cmake ninja", "cmake ninja-build");
    let remedy = match must_bring {
        true => format!("{} (or, without an sdist: {})", words.install(packages), words.install(cmake)),
        false => words.install(packages),
    };
    report.missing_one(what, why, remedy, words.packages(packages), SOURCES);
}

fn disk(report: &mut Report, found: &Found, target: &Target, cache: &Path) {
    let room = Room::of(found, target);
    let free = found.free_bytes >> 20;
    let what = format!("free disk in {}", cache.display());
    if found.free_bytes >= room.bytes() {
        return report.found(what, format!("{free} MiB; a build takes up to {room}"), CACHE);
    }
    let why = format!("a build takes up to {room}");
    let remedy = format!("there are {free} MiB; make room or set LLAMA_ORCH_CACHE");
    report.missing_one(what, why, remedy, "", CACHE);
}

fn at(program: &Program) -> String {
    format!("{} ({})", program.version, program.path.display())
}
