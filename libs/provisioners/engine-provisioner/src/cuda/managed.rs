//! A CUDA toolkit without root: compiler, runtime and cuBLAS from pinned Python wheels, in the cache.
//! A card with a driver and no toolkit is the common case; it must not end in a manual download.
//!
//! The wheels are made for running; what a linker needs beside them (names without a version, a stand-in
//! for the driver's library) is added here.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use provisioners_model_provisioner::Cancel;

use super::fit;
use crate::error::EnsureError;
use crate::helper::{Helper, Tool};
use crate::host::Host;
use crate::observer::Step;
use crate::store;
use crate::tools::ToolsError;

/// One toolkit release; each wheel's own version follows NVIDIA's component versions.
pub(crate) const VERSION: &str = "13.0.88";
const TOOLKIT: fit::Version = (13, 0);

/// Name, version, SHA-256 of the x86-64 and of the arm64 wheel.
const WHEELS: [(&str, &str, [&str; 2]); 6] = [
    (
        "nvidia-cuda-nvcc",
        "13.0.88",
        [
            "56fe502eb77625a12f25172caa3cdddb4e4c8ba2c8c17dba44b164761b380f03",
            "c7ff28f86a24effdc6c034fa15230c549a273e4771b10a7fec14996f8cf3307f",
        ],
    ),
    (
        "nvidia-nvvm",
        "13.0.88",
        [
            "c5f41ffeb6466944a026dfa5317d7d85355c119bbec279205d22f1869d1054e0",
            "c4376a291d72d22a315d9d2f69bdae8f8cd83a627f75bad395cee49a0fe65dc1",
        ],
    ),
    (
        "nvidia-cuda-crt",
        "13.0.88",
        [
            "2c8043c7c9e02492716426e9919fc78d2c5b3b2a7a768a88e952676b08aa55a4",
            "ee2ea2a97073e02ee62bb27841f437332be2c248e3eac013df07997ada39c003",
        ],
    ),
    (
        "nvidia-cuda-runtime",
        "13.0.96",
        [
            "7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548",
            "ef9bcbe90493a2b9d810e43d249adb3d02e98dd30200d86607d8d02687c43f55",
        ],
    ),
    (
        "nvidia-cuda-cccl",
        "13.0.85",
        [
            "e0da7ad981f3a8aff08241b5bfc1af868742a63e2762f53a5171c492ef242649",
            "6f0203e29fed809ee2b7fe9b1344df66ecab990c37d6a2e0e189b26d6c97ed7c",
        ],
    ),
    (
        "nvidia-cublas",
        "13.1.0.3",
        [
            "ee8722c1f0145ab246bccb9e452153b5e0515fd094c3678df50b2a0888b8b171",
            "c86fc7f7ae36d7528288c5d88098edcb7b02c633d262e7ddbb86b0ad91be5df2",
        ],
    ),
];

/// What the wheels unpack to, measured.
pub(crate) const DISK_BYTES: u64 = 841 << 20;
/// What comes over the network.
pub(crate) const DOWNLOAD_MIB: u64 = 528;

const LIMIT: Duration = Duration::from_secs(3600);
const COMPLETE: &str = ".complete";

/// What llama.cpp calls in the driver's library. A stand-in with these names is linked against, and the
/// driver's own library is loaded when the engine starts.
const DRIVER_CALLS: [&str; 11] = [
    "cuDeviceGet",
    "cuDeviceGetAttribute",
    "cuGetErrorString",
    "cuMemAddressFree",
    "cuMemAddressReserve",
    "cuMemCreate",
    "cuMemGetAllocationGranularity",
    "cuMemMap",
    "cuMemRelease",
    "cuMemSetAccess",
    "cuMemUnmap",
];

fn dir(cache: &Path) -> PathBuf {
    cache.join(format!("tools/cuda-{VERSION}"))
}

/// Where its compiler is, or will be.
pub(crate) fn nvcc(cache: &Path) -> PathBuf {
    dir(cache).join("nvidia/cu13/bin/nvcc")
}

/// Where its libraries are.
pub(super) fn libraries(cache: &Path) -> PathBuf {
    dir(cache).join("nvidia/cu13/lib")
}

/// Where the licence that came with `wheel` is.
pub(super) fn licence(cache: &Path, wheel: &str) -> PathBuf {
    let pinned = WHEELS.iter().find(|(name, ..)| *name == wheel);
    let version = pinned.map_or("", |(_, version, _)| version);
    dir(cache).join(format!("{}-{version}.dist-info/licenses/License.txt", wheel.replace('-', "_")))
}

/// Whether `nvcc` is that of the managed toolkit.
pub(crate) fn is_managed(cache: &Path, nvcc: &Path) -> bool {
    nvcc == self::nvcc(cache)
}

/// What stands for the compiler in the engine digest: it is pinned, so nobody has to be asked.
pub(crate) fn version_line() -> String {
    format!("{MARK} release {}.{}, V{VERSION}", TOOLKIT.0, TOOLKIT.1)
}

/// What every version of it says where a compiler's line stands.
pub(crate) const MARK: &str = "managed CUDA";

/// Whether it is there.
pub(crate) fn installed(cache: &Path) -> bool {
    dir(cache).join(COMPLETE).exists()
}

/// Whether its wheels are made for this machine.
pub(crate) fn is_for_this_machine() -> bool {
    matches!(std::env::consts::ARCH, "x86_64" | "aarch64")
}

/// The driver branch that it needs, or a newer one.
pub(crate) fn oldest_driver() -> u32 {
    fit::oldest_driver(TOOLKIT).unwrap_or(0)
}

/// The driver, where it is too old for it; with an unknown one the build will tell.
pub(crate) fn too_old(driver: Option<&str>) -> Option<&str> {
    driver.filter(|driver| fit::driver_branch(driver).is_some_and(|branch| branch < oldest_driver()))
}

/// Installs it where it is not.
pub(crate) fn ensure(
    host: &Host,
    cache: &Path,
    step: &Step<'_>,
    offline: bool,
    cancel: &Cancel,
) -> Result<(), ToolsError> {
    if installed(cache) {
        return Ok(());
    }
    if offline {
        return Err(ToolsError::Offline);
    }
    let on_wait = || step.doing("waiting for another process that installs the CUDA toolkit");
    let _lock = store::lock(&cache.join("tools/.lock-cuda"), &on_wait, cancel)?;
    if installed(cache) {
        return Ok(());
    }
    step.doing(format!("installing the CUDA toolkit {VERSION} into the cache ({DOWNLOAD_MIB} MiB to fetch)"));
    let dir = dir(cache);
    let refuse =
        |source| EnsureError::Cache { action: "install the CUDA toolkit in", path: dir.clone(), source };
    // Half of an interrupted installation may be there.
    match std::fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(refuse(error).into()),
        _ => std::fs::create_dir_all(&dir).map_err(refuse)?,
    }
    std::fs::write(dir.join("requirements.txt"), requirements()).map_err(refuse)?;
    fetch(host, cache, &dir, cancel)?;
    let root = dir.join("nvidia/cu13");
    complete(&root).map_err(refuse)?;
    stand_in(host, cache, &root, cancel).map_err(|error| match error {
        StandIn::Io(source) => ToolsError::Ensure(refuse(source)),
        StandIn::Helper(error) => ToolsError::Helper(error),
    })?;
    std::fs::write(dir.join(COMPLETE), "").map_err(|source| refuse(source).into())
}

fn requirements() -> String {
    let line = |(name, version, [x86, arm]): &(&str, &str, [&str; 2])| {
        format!("{name}=={version} --hash=sha256:{x86} --hash=sha256:{arm}\n")
    };
    WHEELS.iter().map(line).collect()
}

fn fetch(host: &Host, cache: &Path, dir: &Path, cancel: &Cancel) -> Result<(), ToolsError> {
    let python = host.find("python3").unwrap_or_else(|| PathBuf::from("python3"));
    let flags = ["-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--no-deps"];
    Helper::new(host, Tool::Python, python, cancel)
        .log(&cache.join("tools/cuda.log"))
        .limit(LIMIT)
        .args(flags)
        .args(["--only-binary", ":all:", "--require-hashes", "--no-cache-dir", "--no-compile"])
        .args([Path::new("--target"), dir, Path::new("-r"), &dir.join("requirements.txt")])
        .run(&mut |_| ())
        .map(drop)
        .map_err(ToolsError::Helper)
}

/// What a toolkit has and the wheels have not.
fn complete(root: &Path) -> std::io::Result<()> {
    for programs in ["bin", "nvvm/bin"] {
        for entry in std::fs::read_dir(root.join(programs))?.flatten() {
            if entry.path().is_file() {
                std::fs::set_permissions(entry.path(), std::fs::Permissions::from_mode(0o755))?;
            }
        }
    }
    let lib = root.join("lib");
    for library in ["libcudart.so", "libcublas.so", "libcublasLt.so"] {
        std::os::unix::fs::symlink(format!("{library}.13"), lib.join(library))?;
    }
    // nvcc's profile looks in `lib64`.
    std::os::unix::fs::symlink("lib", root.join("lib64"))?;
    std::fs::create_dir_all(lib.join("stubs"))
}

enum StandIn {
    Io(std::io::Error),
    Helper(crate::helper::HelperError),
}

fn stand_in(host: &Host, cache: &Path, root: &Path, cancel: &Cancel) -> Result<(), StandIn> {
    let text: String =
        DRIVER_CALLS.iter().map(|name| format!("int {name}(void) {{ return 999; }}\n")).collect();
    let source = root.join("lib/stubs/cuda.c");
    std::fs::write(&source, text).map_err(StandIn::Io)?;
    let cc = host.find_or("CC", &["cc", "gcc", "clang"]).unwrap_or_else(|| PathBuf::from("cc"));
    Helper::new(host, Tool::Compiler, cc, cancel)
        .log(&cache.join("tools/cuda.log"))
        .limit(Duration::from_secs(60))
        .args(["-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o"])
        .args([root.join("lib/stubs/libcuda.so"), source])
        .run(&mut |_| ())
        .map(drop)
        .map_err(StandIn::Helper)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// EPROV-017
    #[test]
    fn every_wheel_is_pinned_by_version_and_digest_for_both_architectures() {
        let text = requirements();
        assert_eq!(text.lines().count(), 6);
        for line in text.lines() {
            assert!(line.contains("==") && line.matches("--hash=sha256:").count() == 2, "{line}");
            assert!(
                line.split("sha256:").skip(1).all(|h| h.trim_end_matches(" --hash=").len() == 64),
                "{line}"
            );
        }
        assert!(text.contains("nvidia-cublas==13.1.0.3"));
    }

    /// EPROV-018
    #[test]
    fn an_old_driver_is_not_offered_a_toolkit_it_cannot_run() {
        for fine in [None, Some("580.65.06"), Some("610.1"), Some("[N/A]")] {
            assert_eq!(too_old(fine), None);
        }
        assert_eq!(too_old(Some("570.133.20")), Some("570.133.20"));
    }
}
