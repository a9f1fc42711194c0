//! Installing what preflight misses, where the configuration allows it: one command of the
//! distribution's own package manager, never asking anybody. It adds no repository and upgrades nothing
//! on purpose.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use provisioners_model_provisioner::Cancel;

use crate::error::EnsureError;
use crate::helper::{Helper, HelperError, Tool};
use crate::host::{Distro, Host};
use crate::observer::Step;
use crate::preflight::{Check, Finding, Report};

const LIMIT: Duration = Duration::from_secs(1800);

/// What would be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Installation {
    program: PathBuf,
    args: Vec<String>,
}

impl fmt::Display for Installation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.program.file_name().unwrap_or_default().to_string_lossy();
        write!(f, "{name} {}", self.args.join(" "))
    }
}

pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// The command that installs the packages of what is missing: none when no package would help, for an
/// unknown distribution, and without the right or a `sudo` to try it with.
pub(crate) fn command(host: &Host, report: &Report, root: bool) -> Option<Installation> {
    let packages = report.packages();
    let (manager, options): (_, &[&str]) = match host.distro() {
        Distro::Debian => ("apt-get", &["install", "-y", "--no-install-recommends"]),
        Distro::Arch => ("pacman", &["-S", "--needed", "--noconfirm"]),
        Distro::Fedora => ("dnf", &["install", "-y"]),
        Distro::Other => return None,
    };
    let manager = host.find(manager).filter(|_| !packages.is_empty())?;
    let args = options.iter().chain(&packages).map(|arg| (*arg).to_owned());
    if root {
        return Some(Installation { program: manager, args: args.collect() });
    }
    // `-n`: a question for a password would wait for an answer that cannot come.
    let before = ["-n".to_owned(), manager.to_string_lossy().into_owned()];
    Some(Installation { program: host.find("sudo")?, args: before.into_iter().chain(args).collect() })
}

impl Installation {
    /// Says what it runs and runs it; returns what to tell when it did not work. Cancelled under
    /// `sudo`, it ends when the package manager does: a half-installed package helps nobody.
    pub(crate) fn run(
        &self,
        host: &Host,
        cache: &Path,
        step: &Step<'_>,
        cancel: &Cancel,
    ) -> Result<Option<Check>, EnsureError> {
        tracing::warn!("allow_package_installs: running {self}");
        step.doing(format!("installing what is missing: {self}"));
        let helper = Helper::new(host, Tool::PackageManager, &self.program, cancel).args(&self.args);
        let helper = helper.env("DEBIAN_FRONTEND", "noninteractive").limit(LIMIT);
        match helper.log(&cache.join("tools/packages.log")).run(&mut |_| ()) {
            Ok(_) => Ok(None),
            Err(HelperError::Cancelled) => Err(EnsureError::Cancelled),
            Err(error) => Ok(Some(Check {
                what: "the attempt to install them".to_owned(),
                finding: Finding::Missing {
                    why: format!("allow_package_installs: true, so {self} was run"),
                    remedy: error.to_string(),
                    packages: Vec::new(),
                },
                key: "provisioning.allow_package_installs",
            })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Search;
    use crate::gpu::Target;
    use crate::observer::Observer;
    use config_loader::Env;
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::Mutex;
    use wire::config::{ArchiveSource, EngineSource, ProvisioningConfig};
    use wire::{PoolId, PreparationStep, StepKind};

    fn script(dir: &Path, name: &str, body: &str) {
        let path = dir.join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn host(dir: &Path, distro: Distro) -> Host {
        Host::new(&Env::new("/", [("PATH", dir.to_str().unwrap())]))
            .with_distro(distro)
            .with_free_disk(u64::MAX)
    }

    fn needs(lists: &[&[&'static str]]) -> Report {
        let check = |packages: &&[&'static str]| {
            let (why, remedy, packages) = (String::new(), String::new(), packages.to_vec());
            Check { what: String::new(), finding: Finding::Missing { why, remedy, packages }, key: "k" }
        };
        Report { checks: lists.iter().map(check).collect() }
    }

    /// EPROV-011
    #[test]
    fn each_distribution_is_asked_in_its_own_words_and_never_for_a_password() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["apt-get", "pacman", "dnf"] {
            script(dir.path(), name, "");
        }
        let missing = needs(&[&["git", "gcc"], &["gcc"]]);
        let shown = |distro, root| command(&host(dir.path(), distro), &missing, root).map(|c| c.to_string());
        assert_eq!(
            shown(Distro::Debian, true).unwrap(),
            "apt-get install -y --no-install-recommends gcc git"
        );
        assert_eq!(shown(Distro::Arch, true).unwrap(), "pacman -S --needed --noconfirm gcc git");
        assert_eq!(shown(Distro::Fedora, true).unwrap(), "dnf install -y gcc git");
        assert_eq!(shown(Distro::Other, true), None);
        assert_eq!(shown(Distro::Fedora, false), None, "no right and no sudo");
        script(dir.path(), "sudo", "");
        let dnf = dir.path().join("dnf");
        let expected = format!("sudo -n {} install -y gcc git", dnf.display());
        assert_eq!(shown(Distro::Fedora, false).unwrap(), expected);
        assert_eq!(command(&host(dir.path(), Distro::Arch), &needs(&[&[]]), true), None, "no package helps");
    }

    #[derive(Default)]
    struct Log(Mutex<Vec<String>>);
    impl Observer for Log {
        fn step(&self, step: &PreparationStep) {
            self.0.lock().unwrap().push(step.description.clone());
        }
    }

    /// A machine without a compiler whose package manager does `body`; the preflight's outcome, what
    /// was said and what was run.
    fn preflight(allow: bool, body: &str) -> (Result<(), String>, String, String) {
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        for name in ["cmake", "ninja"] {
            script(&bin, name, "echo version 9.9");
        }
        let record = format!("echo \"$*\" >> {0}/calls; b={0}\n", bin.display());
        script(&bin, "apt-get", &format!("{record}{body}"));
        script(&bin, "sudo", "shift; exec \"$@\"");
        let archive = ArchiveSource {
            url: "file:/x".into(),
            sha256: "0".repeat(64),
            subdir: PathBuf::new(),
            binary: None,
        };
        let config = ProvisioningConfig {
            sources: vec![EngineSource::Archive(archive)],
            allow_package_installs: allow,
            ..ProvisioningConfig::default()
        };
        let (log, pool, cancel) = (Log::default(), PoolId::try_new("p").unwrap(), Cancel::new());
        let step = Step::new(&log, &pool, StepKind::EngineProvision);
        let host = host(&bin, Distro::Debian);
        let search = Search {
            host: &host,
            cache: dir.path(),
            pool: &pool,
            config: &config,
            target: &Target::Cpu,
            step: &step,
            cancel: &cancel,
            offline: false,
            remembers: true,
        };
        let outcome = search.preflight().map_err(|e| e.to_string());
        let calls = std::fs::read_to_string(bin.join("calls")).unwrap_or_default();
        (outcome, log.0.into_inner().unwrap().join("\n"), calls)
    }

    const INSTALL: &str = "for t in cc c++; do cp \"$b/cmake\" \"$b/$t\"; done";

    /// EPROV-011
    #[test]
    fn what_is_missing_is_installed_where_that_is_allowed_and_only_there() {
        let path = "PATH=/usr/bin:/bin\n";
        let (outcome, said, calls) = preflight(true, &format!("{path}{INSTALL}"));
        assert_eq!(outcome, Ok(()));
        assert_eq!(calls, "install -y --no-install-recommends build-essential\n");
        assert!(said.contains("apt-get install -y --no-install-recommends build-essential"), "{said}");
        let (outcome, _, calls) = preflight(false, &format!("{path}{INSTALL}"));
        assert!(outcome.unwrap_err().contains("MISSING  C compiler") && calls.is_empty());
    }

    /// EPROV-011
    #[test]
    fn an_installation_that_fails_is_shown_with_what_is_still_missing() {
        let (outcome, _, _) = preflight(true, "echo E: Unable to locate package; exit 100");
        let error = outcome.unwrap_err();
        for part in
            ["MISSING  C compiler", "exit status: 100", "E: Unable to locate package", "build-essential"]
        {
            assert!(error.contains(part), "{error}");
        }
    }
}
