//! Driver, toolkit, cards and host compiler have to fit together before an hour is spent on compiling.

use std::path::Path;

use super::{Found, Needs, Report};
use crate::cuda::fit::{self, HostCompiler};
use crate::cuda::managed;
use crate::gpu::Target;
use crate::host::Distro;

const TOOLKIT: &str = "provisioning.toolkit";
const DEVICES: &str = "devices";
const GPU: &str = "provisioning.gpu";
const MANAGED_IS_TOO_NEW: &str = "install a newer driver, or a CUDA toolkit that this one supports, so that nvcc is on \
                                  the PATH (or set CUDA_PATH), with `provisioning.toolkit: system`, or consent to a \
                                  CPU build with `provisioning.gpu: off`";

pub(super) fn lines(report: &mut Report, found: &Found, needs: &Needs<'_>, distro: Distro, cache: &Path) {
    let (Some(cuda), Target::Cuda { nvcc, architectures, device_mask, .. }) =
        (needs.compilers.cuda.as_ref(), needs.target)
    else {
        return;
    };
    let toolkit = cuda.toolkit.map(|(major, minor)| format!("CUDA {major}.{minor}"));
    let name = toolkit.as_deref().unwrap_or("this CUDA toolkit");
    let nvcc_line = match (managed::is_managed(cache, nvcc), managed::installed(cache)) {
        (true, true) => format!("{} (in the cache)", managed::VERSION),
        (true, false) => format!(
            "pip installs {} into the cache ({} MiB to fetch)",
            managed::VERSION,
            managed::DOWNLOAD_MIB
        ),
        (false, _) => format!("{name} ({})", nvcc.display()),
    };
    report.handled("CUDA compiler (nvcc)", nvcc_line, TOOLKIT);
    let older = match managed::is_managed(cache, nvcc) {
        true => MANAGED_IS_TOO_NEW,
        false => "install a newer driver, or an older toolkit and set CUDA_PATH to it",
    };
    driver(report, found, cuda.toolkit, name, older);
    host_compiler(report, needs, &cuda.host_compiler, distro);
    let oldest = cuda.toolkit.and_then(fit::oldest_architecture).unwrap_or(0);
    let too_old = |text: &&String| text.parse::<u32>().is_ok_and(|architecture| architecture < oldest);
    match architectures.iter().find(too_old) {
        None => {
            let text = format!("{} (used: {device_mask})", architectures.join(", "));
            report.found("compute capabilities of the cards", text, DEVICES);
        }
        Some(architecture) => report.missing_one(
            format!("a toolkit that builds for compute capability {architecture}"),
            format!("{name} builds for {oldest} and newer"),
            "install CUDA 12 and set CUDA_PATH to it, or choose another card in `devices`",
            "",
            DEVICES,
        ),
    }
}

fn driver(report: &mut Report, found: &Found, toolkit: Option<fit::Version>, name: &str, remedy: &str) {
    let branch = found.driver.as_deref().and_then(fit::driver_branch);
    let oldest = toolkit.and_then(fit::oldest_driver);
    let what = |oldest: u32| format!("the NVIDIA driver {oldest} or newer");
    match (&found.driver, branch, oldest) {
        (Some(driver), Some(branch), Some(oldest)) if branch < oldest => report.missing_one(
            what(oldest),
            format!("{name} needs it; {driver} is loaded"),
            remedy,
            "",
            TOOLKIT,
        ),
        (Some(driver), _, Some(oldest)) => report.found(what(oldest), driver.as_str(), TOOLKIT),
        (Some(driver), _, None) => report.found("the NVIDIA driver", driver.as_str(), GPU),
        // Cards are listed, so there is one: the finished binary shows whether it is good enough.
        (None, _, _) => report.handled("the NVIDIA driver", "it does not tell its version", GPU),
    }
}

fn host_compiler(report: &mut Report, needs: &Needs<'_>, compiler: &HostCompiler, distro: Distro) {
    let what = "C++ compiler that nvcc accepts";
    match compiler {
        HostCompiler::Same => report.found(what, "the C++ compiler above", TOOLKIT),
        HostCompiler::Other(path) => {
            let says = needs.compilers.lines.last().map_or("", String::as_str);
            report.found(what, format!("{says} ({})", path.display()), TOOLKIT);
        }
        HostCompiler::Missing(newest) => {
            let install = match distro {
                Distro::Debian | Distro::Other => format!("sudo apt-get install g++-{newest}"),
                Distro::Arch => format!("sudo pacman -S gcc{newest}"),
                Distro::Fedora => format!("sudo dnf install gcc{newest}-c++"),
            };
            let remedy = format!("{install}, or a newer toolkit (`provisioning.toolkit: managed`)");
            let what = format!("a C++ compiler that nvcc accepts (GCC {newest} or older)");
            report.missing_one(what, "to build for CUDA", remedy, "", TOOLKIT);
        }
    }
}
