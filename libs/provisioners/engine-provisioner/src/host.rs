//! The machine as a value: what helpers may see of the environment, where programs are, which
//! distribution, CPU and how much room. Read once; tests make their own.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use config_loader::Env;

/// The machine that builds.
#[derive(Debug, Clone)]
pub struct Host {
    env: Vec<(OsString, OsString)>,
    path: Vec<PathBuf>,
    distro: Distro,
    cpu: String,
    cores: usize,
    /// Believed instead of asking the disk.
    free_disk: Option<u64>,
}

/// Whose package manager a remedy should name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Distro {
    Debian,
    Arch,
    Fedora,
    Other,
}

/// What a helper may inherit. Everything else (tokens, `LD_PRELOAD`, `PYTHONPATH`, `GIT_DIR`) stays out.
const INHERITED: [&str; 10] = [
    "PATH",
    "HOME",
    "LANG",
    "TMPDIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CC",
    "CXX",
    "CUDA_PATH",
];

/// A compile job of llama.cpp's largest files needs about this much memory.
const BYTES_PER_JOB: u64 = 1536 * 1024 * 1024;

impl Host {
    /// This machine, with the programs on `env`'s `PATH` and the allowed part of its variables.
    #[must_use]
    pub fn new(env: &Env) -> Self {
        let path = env.var("PATH").map(|path| std::env::split_paths(path).collect()).unwrap_or_default();
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        Self {
            env: env.iter().filter(|(name, _)| inherited(name)).map(|(k, v)| (k.into(), v.into())).collect(),
            path,
            distro: distro(&read("/etc/os-release")),
            cpu: this_cpu(),
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            free_disk: None,
        }
    }

    /// The executable `name` on the path.
    pub(crate) fn find(&self, name: &str) -> Option<PathBuf> {
        let candidates = self.path.iter().filter(|dir| dir.is_absolute()).map(|dir| dir.join(name));
        candidates.into_iter().find(|path| is_executable(path))
    }

    /// The program a variable such as `CC` names, else the first of `names` that is on the path.
    pub(crate) fn find_or(&self, variable: &str, names: &[&str]) -> Option<PathBuf> {
        match self.var(variable).and_then(OsStr::to_str) {
            Some(name) if name.contains('/') => Some(PathBuf::from(name)).filter(|path| is_executable(path)),
            Some(name) => self.find(name),
            None => names.iter().find_map(|name| self.find(name)),
        }
    }

    pub(crate) fn var(&self, name: &str) -> Option<&OsStr> {
        self.env.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_os_str())
    }

    /// The allowed environment of a helper.
    pub(crate) fn helper_env(&self) -> &[(OsString, OsString)] {
        &self.env
    }

    pub(crate) fn distro(&self) -> Distro {
        self.distro
    }

    pub(crate) fn with_free_disk(mut self, bytes: u64) -> Self {
        self.free_disk = Some(bytes);
        self
    }

    /// Room on the disk that `dir` is on, or will be.
    pub(crate) fn free_disk(&self, dir: &Path) -> u64 {
        self.free_disk.unwrap_or_else(|| free_disk(dir))
    }

    #[cfg(test)]
    pub(crate) fn with_distro(mut self, distro: Distro) -> Self {
        self.distro = distro;
        self
    }

    /// What a native build depends on: architecture, model name and instruction sets.
    pub(crate) fn cpu(&self) -> &str {
        &self.cpu
    }

    /// The version of the loaded NVIDIA driver, as `580.65.06`.
    pub(crate) fn nvidia_driver(&self) -> Option<String> {
        let text = std::fs::read_to_string("/sys/module/nvidia/version").ok()?;
        Some(text.trim().to_owned()).filter(|version| !version.is_empty())
    }

    /// Compile jobs that fit into cores and free memory.
    pub(crate) fn jobs(&self) -> usize {
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let by_memory = available_memory(&meminfo).map_or(1, |bytes| (bytes / BYTES_PER_JOB).max(1));
        self.cores.min(usize::try_from(by_memory).unwrap_or(usize::MAX))
    }
}

fn inherited(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| {
        let upper = name.to_ascii_uppercase();
        INHERITED.contains(&name)
            || name.starts_with("PIP_")
            || name.starts_with("LC_")
            // Where it is kept, and how large it may be.
            || ["CCACHE_DIR", "CCACHE_MAXSIZE", "CCACHE_CONFIGPATH"].contains(&name)
            || upper.ends_with("_PROXY")
    })
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

fn distro(os_release: &str) -> Distro {
    let value = |key: &str| os_release.lines().find_map(|line| line.strip_prefix(key)).unwrap_or("");
    let ids = format!("{} {}", value("ID="), value("ID_LIKE=")).replace(['"', '\''], " ");
    let mut known = ids.split_whitespace().filter_map(|id| match id {
        "debian" | "ubuntu" => Some(Distro::Debian),
        "arch" => Some(Distro::Arch),
        "fedora" | "rhel" => Some(Distro::Fedora),
        _ => None,
    });
    known.next().unwrap_or(Distro::Other)
}

/// What a native build depends on here: architecture, model name and instruction sets.
pub(crate) fn this_cpu() -> String {
    cpu_identity(&std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default())
}

/// The lines of `/proc/cpuinfo` that a native build depends on, of the first processor.
fn cpu_identity(cpuinfo: &str) -> String {
    let first = cpuinfo.split("\n\n").next().unwrap_or("");
    let keys = ["model name", "flags", "Features", "CPU implementer", "CPU part"];
    let wanted = first.lines().filter(|line| keys.iter().any(|key| line.starts_with(key)));
    let fields: Vec<String> =
        wanted.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    format!("{}\n{}", std::env::consts::ARCH, fields.join("\n"))
}

fn available_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Room on the disk that `path` is on, or will be.
pub(crate) fn free_disk(path: &Path) -> u64 {
    let existing = path.ancestors().find(|path| path.exists());
    let asked = existing.and_then(|path| rustix::fs::statvfs(path).ok());
    // Not being able to ask is no reason to refuse.
    asked.map_or(u64::MAX, |stat| stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn helpers_inherit_proxies_and_settings_of_pip_and_ccache_and_no_secrets() {
        let vars = [
            ("PATH", "/bin"),
            ("https_proxy", "p"),
            ("NO_PROXY", "n"),
            ("PIP_INDEX_URL", "i"),
            ("HF_TOKEN", "secret"),
            ("LLAMA_ORCH_TOKEN", "secret"),
            ("LD_PRELOAD", "x.so"),
            ("PYTHONPATH", "/evil"),
            ("GIT_DIR", "/x"),
            ("CC", "gcc"),
            ("CCACHE_DIR", "/c"),
            ("CCACHE_PREFIX", "evil"),
        ];
        let host = Host::new(&Env::new("/", vars));
        let names: Vec<_> = host.helper_env().iter().map(|(k, _)| k.to_str().unwrap()).collect();
        assert_eq!(names, ["CC", "CCACHE_DIR", "NO_PROXY", "PATH", "PIP_INDEX_URL", "https_proxy"]);
    }

    #[test]
    fn the_distribution_is_recognised_by_its_family() {
        assert_eq!(distro("ID=ubuntu\nID_LIKE=debian\n"), Distro::Debian);
        assert_eq!(distro("ID=cachyos\nID_LIKE=\"arch\"\n"), Distro::Arch);
        assert_eq!(distro("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n"), Distro::Fedora);
        assert_eq!(distro("ID=nixos\n"), Distro::Other);
    }

    #[test]
    fn a_cpu_is_the_same_whatever_its_current_clock() {
        let at = |mhz| {
            format!("processor : 0\nmodel name\t: X\ncpu MHz : {mhz}\nflags\t\t: a b\n\nprocessor : 1\n")
        };
        assert_eq!(cpu_identity(&at(800)), cpu_identity(&at(4000)));
        assert!(cpu_identity(&at(1)).contains("flags : a b"));
        assert_eq!(available_memory("MemTotal: 9 kB\nMemAvailable:  2 kB\n"), Some(2048));
    }
}
