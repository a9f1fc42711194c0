//! What is said about machines that have everything, nothing, or what does not fit together.

use super::*;
use crate::cuda::fit::HostCompiler;
use crate::key::Cuda;
use crate::tools::{BuildTools, Cmake};
use wire::config::GitSource;

fn nothing() -> Found {
    Found {
        c: None,
        cxx: None,
        git: None,
        tools: BuildTools::default(),
        ninja_says: String::new(),
        make_says: String::new(),
        python: Some(Python::Absent),
        own_toolkit: false,
        runtime: false,
        driver: None,
        free_bytes: 1 << 20,
        source_bytes: 290 << 20,
    }
}

fn program(path: &str, version: &str) -> Program {
    Program { path: path.into(), version: version.into() }
}

fn everything() -> Found {
    Found {
        c: Some("/usr/bin/cc".into()),
        cxx: Some("/usr/bin/c++".into()),
        git: Some(program("/usr/bin/git", "2.39.5")),
        tools: BuildTools {
            cmake: Some(Cmake { path: "/usr/bin/cmake".into(), version: "3.25.1".into() }),
            ninja: Some("/usr/bin/ninja".into()),
            ..BuildTools::default()
        },
        ninja_says: "1.11.1".into(),
        python: Some(Python::Usable(program("/usr/bin/python3", "3.11.2"))),
        free_bytes: 40 << 30,
        ..nothing()
    }
}

fn gcc() -> Compilers {
    let lines = vec!["cc (Debian 12.2.0-14) 12.2.0".to_owned(), "c++ (Debian 12.2.0-14) 12.2.0".to_owned()];
    Compilers { lines, cuda: None }
}

fn none() -> Compilers {
    Compilers { lines: vec![String::new(), String::new()], cuda: None }
}

fn cpu(found: &Found, config: &ProvisioningConfig, compilers: &Compilers, distro: Distro) -> String {
    let needs = Needs { config, target: &Target::Cpu, compilers };
    report(found, &needs, distro, Path::new("/c")).to_string()
}

/// EPROV-004
#[test]
fn what_is_there_is_named_with_its_version_and_the_key_that_changes_it() {
    let config = ProvisioningConfig::default();
    insta::assert_snapshot!(cpu(&everything(), &config, &gcc(), Distro::Debian), @r#"
        ok       git: 2.39.5 (/usr/bin/git) [provisioning.sources]
        ok       CMake 3.14 or newer: 3.25.1 (/usr/bin/cmake) [provisioning.sources]
        ok       Ninja or make: Ninja 1.11.1 (/usr/bin/ninja) [provisioning.sources]
        ok       C compiler: cc (Debian 12.2.0-14) 12.2.0 (/usr/bin/cc) [provisioning.sources]
        ok       C++ compiler: c++ (Debian 12.2.0-14) 12.2.0 (/usr/bin/c++) [provisioning.sources]
        ok       python3 with pip: 3.11.2 (/usr/bin/python3) [provisioning.sources]
        ok       free disk in /c: 40960 MiB; a build takes up to 930 MiB (290 for the source, 512 for objects, 128 for what else there is) [paths.cache]
        "#);
}

/// EPROV-004
#[test]
fn everything_that_is_missing_is_reported_at_once_with_its_remedy() {
    let config = ProvisioningConfig::default();
    insta::assert_snapshot!(cpu(&nothing(), &config, &none(), Distro::Debian), @r#"
        ok       git: not on this machine, and no `git` source is listed [provisioning.sources]
        ok       CMake 3.14 or newer: not on this machine; pip installs 4.4.4 into the cache (29 MiB to fetch) [provisioning.sources]
        ok       Ninja or make: pip installs Ninja 1.13.2 into the cache with it [provisioning.sources]
        MISSING  C compiler (to build the engine): sudo apt-get install build-essential, set CC, or list an existing binary under `provisioning.sources` as `path` [provisioning.allow_package_installs]
        MISSING  C++ compiler (to build the engine): sudo apt-get install build-essential, set CXX, or list an existing binary under `provisioning.sources` as `path` [provisioning.allow_package_installs]
        MISSING  python3 with pip (to install CMake and Ninja into the cache): sudo apt-get install python3 python3-pip python3-venv (or, without an sdist: sudo apt-get install cmake ninja-build) [provisioning.allow_package_installs]
        MISSING  free disk in /c (a build takes up to 1043 MiB (290 for the source, 113 for CMake and Ninja, 512 for objects, 128 for what else there is)): there are 1 MiB; make room or set LLAMA_ORCH_CACHE [paths.cache]
        "#);
    let missing = |distro| {
        let text = cpu(&nothing(), &config, &none(), distro);
        text.lines()
            .filter(|line| line.starts_with("MISSING"))
            .map(|line| format!("{line}\n"))
            .collect::<String>()
    };
    insta::assert_snapshot!(missing(Distro::Arch), @r#"
        MISSING  C compiler (to build the engine): sudo pacman -S base-devel, set CC, or list an existing binary under `provisioning.sources` as `path` [provisioning.allow_package_installs]
        MISSING  C++ compiler (to build the engine): sudo pacman -S base-devel, set CXX, or list an existing binary under `provisioning.sources` as `path` [provisioning.allow_package_installs]
        MISSING  python3 with pip (to install CMake and Ninja into the cache): sudo pacman -S python python-pip (or, without an sdist: sudo pacman -S cmake ninja) [provisioning.allow_package_installs]
        MISSING  free disk in /c (a build takes up to 1043 MiB (290 for the source, 113 for CMake and Ninja, 512 for objects, 128 for what else there is)): there are 1 MiB; make room or set LLAMA_ORCH_CACHE [paths.cache]
        "#);
    insta::assert_snapshot!(missing(Distro::Fedora), @r#"
        MISSING  C compiler (to build the engine): sudo dnf install gcc gcc-c++, set CC, or list an existing binary under `provisioning.sources` as `path` [provisioning.allow_package_installs]
        MISSING  C++ compiler (to build the engine): sudo dnf install gcc gcc-c++, set CXX, or list an existing binary under `provisioning.sources` as `path` [provisioning.allow_package_installs]
        MISSING  python3 with pip (to install CMake and Ninja into the cache): sudo dnf install python3 python3-pip (or, without an sdist: sudo dnf install cmake ninja-build) [provisioning.allow_package_installs]
        MISSING  free disk in /c (a build takes up to 1043 MiB (290 for the source, 113 for CMake and Ninja, 512 for objects, 128 for what else there is)): there are 1 MiB; make room or set LLAMA_ORCH_CACHE [paths.cache]
        "#);
    insta::assert_snapshot!(missing(Distro::Other), @r#"
        MISSING  C compiler (to build the engine): install the packages that Debian calls build-essential, set CC, or list an existing binary under `provisioning.sources` as `path` [provisioning.sources]
        MISSING  C++ compiler (to build the engine): install the packages that Debian calls build-essential, set CXX, or list an existing binary under `provisioning.sources` as `path` [provisioning.sources]
        MISSING  python3 with pip (to install CMake and Ninja into the cache): install the packages that Debian calls python3 python3-pip python3-venv (or, without an sdist: install the packages that Debian calls cmake ninja-build) [provisioning.sources]
        MISSING  free disk in /c (a build takes up to 1043 MiB (290 for the source, 113 for CMake and Ninja, 512 for objects, 128 for what else there is)): there are 1 MiB; make room or set LLAMA_ORCH_CACHE [paths.cache]
        "#);
}

/// EPROV-004
#[test]
fn what_pip_brings_is_not_missing() {
    let found = Found { tools: BuildTools::default(), ..everything() };
    let config = ProvisioningConfig::default();
    insta::assert_snapshot!(cpu(&found, &config, &gcc(), Distro::Debian), @r#"
        ok       git: 2.39.5 (/usr/bin/git) [provisioning.sources]
        ok       CMake 3.14 or newer: not on this machine; pip installs 4.4.4 into the cache (29 MiB to fetch) [provisioning.sources]
        ok       Ninja or make: pip installs Ninja 1.13.2 into the cache with it [provisioning.sources]
        ok       C compiler: cc (Debian 12.2.0-14) 12.2.0 (/usr/bin/cc) [provisioning.sources]
        ok       C++ compiler: c++ (Debian 12.2.0-14) 12.2.0 (/usr/bin/c++) [provisioning.sources]
        ok       python3 with pip: 3.11.2 (/usr/bin/python3) [provisioning.sources]
        ok       free disk in /c: 40960 MiB; a build takes up to 1043 MiB (290 for the source, 113 for CMake and Ninja, 512 for objects, 128 for what else there is) [paths.cache]
        "#);
    let old = Some(Cmake { path: "/usr/bin/cmake".into(), version: "3.10.2".into() });
    let found = Found { tools: BuildTools { cmake: old, ..BuildTools::default() }, ..everything() };
    let text = cpu(&found, &config, &gcc(), Distro::Debian);
    assert!(text.contains("3.10.2 (/usr/bin/cmake) is too old; pip installs 4.4.4"), "{text}");
}

fn git_source() -> EngineSource {
    EngineSource::Git(GitSource {
        repo: "r".into(),
        reference: "b1".into(),
        commit: "0".repeat(40),
        submodules: false,
    })
}

/// EPROV-004, EPROV-027
#[test]
fn without_python_make_builds_where_it_is_there_and_a_source_needs_no_pip() {
    let tools = BuildTools { ninja: None, make: Some("/usr/bin/make".into()), ..everything().tools };
    let python = Some(Python::Absent);
    let found = Found { tools, make_says: "4.3".into(), python, ..everything() };
    let config = ProvisioningConfig { sources: vec![git_source()], ..Default::default() };
    insta::assert_snapshot!(cpu(&found, &config, &gcc(), Distro::Debian), @r#"
        ok       git: 2.39.5 (/usr/bin/git) [provisioning.sources]
        ok       CMake 3.14 or newer: 3.25.1 (/usr/bin/cmake) [provisioning.sources]
        ok       Ninja or make: make 4.3 (/usr/bin/make) [provisioning.sources]
        ok       C compiler: cc (Debian 12.2.0-14) 12.2.0 (/usr/bin/cc) [provisioning.sources]
        ok       C++ compiler: c++ (Debian 12.2.0-14) 12.2.0 (/usr/bin/c++) [provisioning.sources]
        ok       python3 with pip: not usable: make builds instead [provisioning.sources]
        ok       free disk in /c: 40960 MiB; a build takes up to 930 MiB (290 for the source, 512 for objects, 128 for what else there is) [paths.cache]
        "#);
    let sdist = cpu(&found, &ProvisioningConfig::default(), &gcc(), Distro::Debian);
    assert!(sdist.contains("MISSING  python3 with pip (to fetch the `sdist` source)"), "{sdist}");
}

#[test]
fn git_is_needed_only_when_nothing_else_can_replace_it() {
    let found = Found { git: None, ..everything() };
    let mut config = ProvisioningConfig { sources: vec![git_source()], ..Default::default() };
    let missing = |config: &ProvisioningConfig| {
        let text = cpu(&found, config, &gcc(), Distro::Arch);
        text.lines().filter(|line| line.starts_with("MISSING")).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(
        missing(&config),
        "MISSING  git (to fetch the `git` source): sudo pacman -S git, or list another source \
         [provisioning.allow_package_installs]"
    );
    config.sources.extend(ProvisioningConfig::default().sources);
    assert_eq!(missing(&config), "");
}

#[test]
fn a_compiler_that_does_not_answer_is_missing() {
    let mute =
        Compilers { lines: vec!["unknown: no answer within 10s".into(), gcc().lines[1].clone()], cuda: None };
    let text = cpu(&everything(), &ProvisioningConfig::default(), &mute, Distro::Debian);
    assert!(
        text.contains("MISSING  C compiler (/usr/bin/cc does not tell its version: unknown: no answer"),
        "{text}"
    );
}

fn cuda(toolkit: crate::cuda::fit::Version, host_compiler: HostCompiler) -> Compilers {
    Compilers { cuda: Some(Cuda { toolkit: Some(toolkit), host_compiler }), ..gcc() }
}

fn target(architectures: &[&str]) -> Target {
    let architectures = architectures.iter().map(|text| (*text).to_owned()).collect();
    Target::Cuda { nvcc: "/n/bin/nvcc".into(), architectures, device_mask: "GPU-aa".into(), driver: None }
}

fn cuda_lines(driver: &str, target: &Target, compilers: &Compilers, distro: Distro) -> String {
    let found = Found { driver: Some(driver.to_owned()), ..everything() };
    let config = ProvisioningConfig::default();
    let text =
        report(&found, &Needs { config: &config, target, compilers }, distro, Path::new("/c")).to_string();
    text.lines().skip(7).map(|line| format!("{line}\n")).collect()
}

/// EPROV-018
#[test]
fn a_toolkit_that_fits_neither_driver_nor_card_nor_compiler_is_refused_before_the_build() {
    let bad = cuda((13, 0), HostCompiler::Missing(15));
    insta::assert_snapshot!(cuda_lines("550.54.14", &target(&["61", "86"]), &bad, Distro::Arch), @r#"
        ok       CUDA compiler (nvcc): CUDA 13.0 (/n/bin/nvcc) [provisioning.toolkit]
        MISSING  the NVIDIA driver 580 or newer (CUDA 13.0 needs it; 550.54.14 is loaded): install a newer driver, or an older toolkit and set CUDA_PATH to it [provisioning.toolkit]
        MISSING  a C++ compiler that nvcc accepts (GCC 15 or older) (to build for CUDA): sudo pacman -S gcc15, or a newer toolkit (`provisioning.toolkit: managed`) [provisioning.toolkit]
        MISSING  a toolkit that builds for compute capability 61 (CUDA 13.0 builds for 75 and newer): install CUDA 12 and set CUDA_PATH to it, or choose another card in `devices` [devices]
        "#);
    let mut good = cuda((12, 4), HostCompiler::Other("/usr/bin/g++-13".into()));
    good.lines.extend(["nvcc: release 12.4".to_owned(), "g++-13 (GCC) 13.2.0".to_owned()]);
    insta::assert_snapshot!(cuda_lines("550.54.14", &target(&["61", "86"]), &good, Distro::Arch), @r#"
        ok       CUDA compiler (nvcc): CUDA 12.4 (/n/bin/nvcc) [provisioning.toolkit]
        ok       the NVIDIA driver 525 or newer: 550.54.14 [provisioning.toolkit]
        ok       C++ compiler that nvcc accepts: g++-13 (GCC) 13.2.0 (/usr/bin/g++-13) [provisioning.toolkit]
        ok       compute capabilities of the cards: 61, 86 (used: GPU-aa) [devices]
        "#);
}
