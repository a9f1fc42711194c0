//! What a build needs from the machine, checked before anything is fetched and reported all at once,
//! each with the command that installs it.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use provisioners_model_provisioner::Cancel;
use wire::config::{EngineSource, ProvisioningConfig};

use crate::cuda::fit::{self, HostCompiler};
use crate::cuda::managed;
use crate::gpu::Target;
use crate::helper::{Helper, Tool};
use crate::host::{Distro, Host};
use crate::key::Cuda;
use crate::tools;

/// One thing that is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// What, as `a C++ compiler`.
    pub what: String,
    /// What it is needed for.
    pub why: String,
    /// What to do.
    pub remedy: String,
    /// This distribution's packages that would help; none for what no package brings.
    pub(crate) packages: Vec<&'static str>,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.what, self.why, self.remedy)
    }
}

/// Sources, objects and the binary together stay below this on every target tried.
const FREE_BYTES: u64 = 3 * 1024 * 1024 * 1024;

/// What is to be built.
pub(crate) struct Needs<'a> {
    pub(crate) config: &'a ProvisioningConfig,
    pub(crate) target: &'a Target,
    pub(crate) cuda: Option<&'a Cuda>,
}

/// What was found, apart from the deciding, so that the deciding can be tested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    c: bool,
    cxx: bool,
    python: Python,
    git: bool,
    own_tools: bool,
    /// The managed CUDA toolkit has to be installed first.
    own_toolkit: bool,
    /// Of the loaded NVIDIA driver.
    driver: Option<String>,
    free_bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Python {
    Absent,
    WithoutPip,
    WithoutVenv,
    Usable,
}

/// Looks at the machine. Starts `python3` once, only if the sources need it.
pub(crate) fn look(host: &Host, cache: &Path, needs: &Needs<'_>, cancel: &Cancel) -> Found {
    let own_tools = !tools::on_path(host) && !tools::installed(cache);
    let own_toolkit = match needs.target {
        Target::Cpu => false,
        Target::Cuda { nvcc, .. } => managed::is_managed(cache, nvcc) && !managed::installed(cache),
    };
    let sdist = needs.config.sources.iter().any(|source| matches!(source, EngineSource::Sdist(_)));
    Found {
        c: host.find_or("CC", &["cc", "gcc", "clang"]).is_some(),
        cxx: host.find_or("CXX", &["c++", "g++", "clang++"]).is_some(),
        python: if sdist || own_tools || own_toolkit { python(host, cancel) } else { Python::Usable },
        git: host.find("git").is_some(),
        own_tools,
        own_toolkit,
        driver: host.nvidia_driver(),
        free_bytes: host.free_disk(cache),
    }
}

fn python(host: &Host, cancel: &Cancel) -> Python {
    let Some(program) = host.find("python3") else { return Python::Absent };
    // One start of the interpreter, and it only looks whether the modules are there.
    let ask =
        "import importlib.util as u; print(*[m for m in ('pip', 'venv', 'ensurepip') if u.find_spec(m)])";
    let helper = Helper::new(host, Tool::Python, &program, cancel).limit(Duration::from_secs(20));
    let there = helper.args(["-c", ask]).run(&mut |_| ()).unwrap_or_default().pop().unwrap_or_default();
    let has = |module: &str| there.split(' ').any(|name| name == module);
    match (has("pip"), has("venv") && has("ensurepip")) {
        (true, true) => Python::Usable,
        (true, false) => Python::WithoutVenv,
        (false, _) => Python::WithoutPip,
    }
}

/// Everything that is missing for these sources. Pure.
pub(crate) fn missing(found: &Found, needs: &Needs<'_>, distro: Distro, cache: &Path) -> Vec<Missing> {
    let config = needs.config;
    let pick = |apt: &'static str, pacman: &'static str, dnf: &'static str| match distro {
        Distro::Debian | Distro::Other => apt,
        Distro::Arch => pacman,
        Distro::Fedora => dnf,
    };
    let install = |packages: &str| match distro {
        Distro::Debian => format!("sudo apt-get install {packages}"),
        Distro::Arch => format!("sudo pacman -S {packages}"),
        Distro::Fedora => format!("sudo dnf install {packages}"),
        Distro::Other => format!("install the packages that Debian calls {packages}"),
    };
    let or_path = "or list an existing binary under `provisioning.sources` as `path`";
    let mut out = Vec::new();
    let mut add = |needed: bool, what: &str, why: &str, packages: &'static str, remedy: String| {
        if needed {
            let packages = packages.split_whitespace().collect();
            out.push(Missing { what: what.to_owned(), why: why.to_owned(), remedy, packages });
        }
    };
    let gcc = pick("build-essential", "base-devel", "gcc gcc-c++");
    let remedy = |variable: &str| format!("{}, set {variable}, {or_path}", install(gcc));
    add(!found.c, "a C compiler", "to build the engine", gcc, remedy("CC"));
    add(!found.cxx, "a C++ compiler", "to build the engine", gcc, remedy("CXX"));
    let why = if found.own_tools {
        "to install CMake and Ninja into the cache"
    } else if found.own_toolkit {
        "to install the CUDA toolkit into the cache"
    } else {
        "to fetch the `sdist` source"
    };
    let python = pick("python3 python3-pip python3-venv", "python python-pip", "python3 python3-pip");
    let cmake = pick("cmake ninja-build", "cmake ninja", "cmake ninja-build");
    let sdist = config.sources.iter().any(|source| matches!(source, EngineSource::Sdist(_)));
    let remedy = match found.own_tools {
        true => format!("{} (or, without an sdist: {})", install(python), install(cmake)),
        false => install(python),
    };
    match found.python {
        Python::Usable => {}
        Python::Absent => add(true, "python3 with pip", why, python, remedy),
        Python::WithoutPip => add(true, "pip for python3", why, python, remedy),
        Python::WithoutVenv => add(found.own_tools, "venv for python3", why, python, remedy),
    }
    let git_listed = config.sources.iter().any(|source| matches!(source, EngineSource::Git(_)));
    // With another source after it, a missing git is only one failed attempt.
    let others = sdist || config.sources.iter().any(|source| matches!(source, EngineSource::Archive(_)));
    let remedy = format!("{}, or list another source", install("git"));
    add(git_listed && !others && !found.git, "git", "to fetch the `git` source", "git", remedy);
    let wanted = FREE_BYTES + if found.own_toolkit { managed::DISK_BYTES } else { 0 };
    let free = format!("{} MiB of free disk in {}", wanted >> 20, cache.display());
    let remedy = format!("there are {} MiB; make room or set LLAMA_ORCH_CACHE", found.free_bytes >> 20);
    add(found.free_bytes < wanted, &free, "for sources and the build", "", remedy);
    out.extend(cuda_missing(found, needs, distro));
    out
}

/// Driver, toolkit, cards and compiler have to fit together before an hour is spent on compiling.
fn cuda_missing(found: &Found, needs: &Needs<'_>, distro: Distro) -> Vec<Missing> {
    let (Some(cuda), Target::Cuda { architectures, .. }) = (needs.cuda, needs.target) else {
        return Vec::new();
    };
    let mut out = Vec::new();
    let mut add = |what: String, why: &str, remedy: String| {
        out.push(Missing { what, why: why.to_owned(), remedy, packages: Vec::new() });
    };
    if let HostCompiler::Missing(newest) = cuda.host_compiler {
        let install = match distro {
            Distro::Debian | Distro::Other => format!("sudo apt-get install g++-{newest}"),
            Distro::Arch => format!("sudo pacman -S gcc{newest}"),
            Distro::Fedora => format!("sudo dnf install gcc{newest}-c++"),
        };
        let remedy = format!("{install}, or a newer toolkit (`provisioning.toolkit: managed`)");
        add(format!("a C++ compiler that nvcc accepts (GCC {newest} or older)"), "to build for CUDA", remedy);
    }
    let Some(toolkit) = cuda.toolkit else { return out };
    let name = format!("CUDA {}.{}", toolkit.0, toolkit.1);
    let branch = found.driver.as_deref().and_then(fit::driver_branch);
    if let (Some(branch), Some(oldest)) = (branch, fit::oldest_driver(toolkit))
        && branch < oldest
    {
        let why = format!("{name} needs it; {} is loaded", found.driver.as_deref().unwrap_or_default());
        let remedy = "install a newer driver, or an older toolkit and set CUDA_PATH to it".to_owned();
        add(format!("the NVIDIA driver {oldest} or newer"), &why, remedy);
    }
    let oldest = fit::oldest_architecture(toolkit).unwrap_or(0);
    let too_old = |text: &&String| text.parse::<u32>().is_ok_and(|architecture| architecture < oldest);
    if let Some(architecture) = architectures.iter().find(too_old) {
        let what = format!("a toolkit that builds for compute capability {architecture}");
        let remedy =
            "install CUDA 12 and set CUDA_PATH to it, or choose another card in `devices`".to_owned();
        add(what, &format!("{name} builds for {oldest} and newer"), remedy);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::config::GitSource;

    fn nothing() -> Found {
        Found {
            c: false,
            cxx: false,
            python: Python::Absent,
            git: false,
            own_tools: true,
            own_toolkit: false,
            driver: None,
            free_bytes: 1 << 20,
        }
    }

    fn cpu(config: &ProvisioningConfig) -> Needs<'_> {
        Needs { config, target: &Target::Cpu, cuda: None }
    }

    fn text(missing: &[Missing]) -> String {
        missing.iter().map(|m| format!("{m}\n")).collect()
    }

    /// EPROV-004
    #[test]
    fn everything_that_is_missing_is_reported_at_once_with_its_remedy() {
        let config = ProvisioningConfig::default();
        let missing = missing(&nothing(), &cpu(&config), Distro::Debian, Path::new("/c"));
        insta::assert_snapshot!(text(&missing), @r"
        a C compiler (to build the engine): sudo apt-get install build-essential, set CC, or list an existing binary under `provisioning.sources` as `path`
        a C++ compiler (to build the engine): sudo apt-get install build-essential, set CXX, or list an existing binary under `provisioning.sources` as `path`
        python3 with pip (to install CMake and Ninja into the cache): sudo apt-get install python3 python3-pip python3-venv (or, without an sdist: sudo apt-get install cmake ninja-build)
        3072 MiB of free disk in /c (for sources and the build): there are 1 MiB; make room or set LLAMA_ORCH_CACHE
        ");
    }

    #[test]
    fn git_is_needed_only_when_nothing_else_can_replace_it() {
        let found = Found { c: true, cxx: true, python: Python::Usable, free_bytes: u64::MAX, ..nothing() };
        let git = EngineSource::Git(GitSource {
            repo: "r".into(),
            reference: "b1".into(),
            commit: "0".repeat(40),
            submodules: false,
        });
        let mut config = ProvisioningConfig { sources: vec![git], ..Default::default() };
        let only = missing(&found, &cpu(&config), Distro::Arch, Path::new("/c"));
        assert_eq!(
            text(&only),
            "git (to fetch the `git` source): sudo pacman -S git, or list another source\n"
        );
        config.sources.extend(ProvisioningConfig::default().sources);
        assert_eq!(missing(&found, &cpu(&config), Distro::Arch, Path::new("/c")), vec![]);
    }
    /// EPROV-018
    #[test]
    fn a_toolkit_that_fits_neither_driver_nor_card_nor_compiler_is_refused_before_the_build() {
        let config = ProvisioningConfig::default();
        let architectures = vec!["61".to_owned(), "86".to_owned()];
        let target = Target::Cuda { nvcc: "/n".into(), architectures, device_mask: String::new() };
        let found = |driver: &str| Found {
            c: true,
            cxx: true,
            python: Python::Usable,
            free_bytes: u64::MAX,
            driver: Some(driver.to_owned()),
            ..nothing()
        };
        let cuda = Cuda { toolkit: Some((13, 0)), host_compiler: HostCompiler::Missing(15) };
        let needs = Needs { config: &config, target: &target, cuda: Some(&cuda) };
        insta::assert_snapshot!(text(&missing(&found("550.54.14"), &needs, Distro::Arch, Path::new("/c"))), @r"
        a C++ compiler that nvcc accepts (GCC 15 or older) (to build for CUDA): sudo pacman -S gcc15, or a newer toolkit (`provisioning.toolkit: managed`)
        the NVIDIA driver 580 or newer (CUDA 13.0 needs it; 550.54.14 is loaded): install a newer driver, or an older toolkit and set CUDA_PATH to it
        a toolkit that builds for compute capability 61 (CUDA 13.0 builds for 75 and newer): install CUDA 12 and set CUDA_PATH to it, or choose another card in `devices`
        ");
        let cuda = Cuda { toolkit: Some((12, 4)), host_compiler: HostCompiler::Same };
        let needs = Needs { cuda: Some(&cuda), ..needs };
        assert_eq!(missing(&found("550.54.14"), &needs, Distro::Arch, Path::new("/c")), vec![]);
    }
}
