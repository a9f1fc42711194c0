//! Looking at the machine: each program is started once for its version, all at the same time, because
//! whoever waits for the answer waits for the slowest alone.

use std::path::{Path, PathBuf};
use std::time::Duration;

use provisioners_model_provisioner::Cancel;
use wire::config::EngineSource;

use super::Needs;
use crate::cuda::managed;
use crate::gpu::Target;
use crate::helper::{Helper, Tool};
use crate::host::Host;
use crate::source;
use crate::tools::{self, BuildTools};

/// What was found, apart from the deciding, so that the deciding can be tested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(super) c: Option<PathBuf>,
    pub(super) cxx: Option<PathBuf>,
    pub(super) git: Option<Program>,
    pub(super) tools: BuildTools,
    /// The versions of `tools`' Ninja and make, for people.
    pub(super) ninja_says: String,
    pub(super) make_says: String,
    /// Absent: nothing needs it.
    pub(super) python: Option<Python>,
    /// The managed CUDA toolkit has to be installed first.
    pub(super) own_toolkit: bool,
    /// The managed CUDA toolkit builds it: its libraries come beside the engine.
    pub(super) runtime: bool,
    /// Of the loaded NVIDIA driver.
    pub(super) driver: Option<String>,
    pub(super) free_bytes: u64,
    /// What the largest source that is not in the cache takes there.
    pub(super) source_bytes: u64,
}

/// A program and what it says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Program {
    pub(super) path: PathBuf,
    pub(super) version: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Python {
    Absent,
    WithoutPip,
    WithoutVenv,
    Usable(Program),
}

const LIMIT: Duration = Duration::from_secs(20);

/// Looks at the machine.
pub(crate) fn look(host: &Host, cache: &Path, needs: &Needs<'_>, cancel: &Cancel) -> Found {
    let runtime = matches!(needs.target, Target::Cuda { nvcc, .. } if managed::is_managed(cache, nvcc));
    let own_toolkit = runtime && !managed::installed(cache);
    let sdist = needs.config.sources.iter().any(|source| matches!(source, EngineSource::Sdist(_)));
    let compiled = needs.config.sources.iter().filter(|source| source::compiles(source));
    let version = |program: Option<PathBuf>, tool| move || says(host, program?, tool, cancel);
    std::thread::scope(|scope| {
        let git = scope.spawn(version(host.find("git"), Tool::Git));
        let ninja = scope.spawn(version(host.find("ninja"), Tool::Builder));
        let make = scope.spawn(version(host.find("make"), Tool::Builder));
        let tools = scope.spawn(|| BuildTools::look(host, cache, cancel));
        // Starting the interpreter costs more than all the others together; often nobody needs it.
        let early = (sdist || own_toolkit).then(|| scope.spawn(|| python(host, cancel)));
        let tools = tools.join().unwrap_or_default();
        let late = || matches!(tools.choice(), tools::Choice::Install(_)).then(|| python(host, cancel));
        let python = match early {
            Some(early) => early.join().ok(),
            None => late(),
        };
        let line = |program: Option<Program>| program.map(|program| program.version).unwrap_or_default();
        Found {
            c: host.find_or("CC", &["cc", "gcc", "clang"]),
            cxx: host.find_or("CXX", &["c++", "g++", "clang++"]),
            git: git.join().ok().flatten(),
            ninja_says: line(ninja.join().ok().flatten()),
            make_says: line(make.join().ok().flatten()),
            tools,
            python,
            own_toolkit,
            runtime,
            driver: driver(host, needs.target),
            free_bytes: host.free_disk(cache),
            source_bytes: compiled.map(|source| source::room(source, cache)).max().unwrap_or(0),
        }
    })
}

/// Of the cards that it is built for, else the one that the kernel has loaded.
fn driver(host: &Host, target: &Target) -> Option<String> {
    let told = match target {
        Target::Cuda { driver, .. } => driver.clone(),
        Target::Cpu => None,
    };
    told.or_else(|| host.nvidia_driver())
}

/// `git version 2.39.5`, `GNU Make 4.3`, `1.11.1`: the first word that begins with a digit.
fn says(host: &Host, path: PathBuf, tool: Tool, cancel: &Cancel) -> Option<Program> {
    let helper = Helper::new(host, tool, &path, cancel).args(["--version"]).limit(LIMIT);
    let lines = helper.run(&mut |_| ()).unwrap_or_default();
    let mut words = lines.first().map(|line| line.split_whitespace()).into_iter().flatten();
    let number = words.find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    Some(Program { path, version: number.unwrap_or("of an unknown version").to_owned() })
}

fn python(host: &Host, cancel: &Cancel) -> Python {
    let Some(path) = host.find("python3") else { return Python::Absent };
    // One start of the interpreter, and it only looks whether the modules are there.
    let ask = "import sys, importlib.util as u; \
               print('%d.%d.%d' % sys.version_info[:3], *[m for m in ('pip', 'venv', 'ensurepip') if u.find_spec(m)])";
    let helper = Helper::new(host, Tool::Python, &path, cancel).limit(LIMIT);
    let there = helper.args(["-c", ask]).run(&mut |_| ()).unwrap_or_default().pop().unwrap_or_default();
    let has = |module: &str| there.split(' ').any(|name| name == module);
    let number = there.split(' ').next().filter(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    let version = number.unwrap_or("of an unknown version").to_owned();
    match (has("pip"), has("venv") && has("ensurepip")) {
        (true, true) => Python::Usable(Program { path, version }),
        (true, false) => Python::WithoutVenv,
        (false, _) => Python::WithoutPip,
    }
}
