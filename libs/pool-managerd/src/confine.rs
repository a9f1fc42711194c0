//! What an engine of a pool with `sandbox: true` may touch: its program, its model, its key, the
//! system's libraries and the graphics cards. It writes nowhere; its log is open before.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use child::Sandbox;
use wire::PreparedEngine;

/// Libraries and their search lists, what a program reads about the machine, and randomness.
const SYSTEM: &[&str] = &[
    "/usr",
    "/lib",
    "/lib64",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/ld.so.preload",
    "/etc/localtime",
    "/etc/nsswitch.conf",
    "/etc/hosts",
    "/etc/OpenCL",
    "/etc/vulkan",
    "/opt/cuda",
    "/proc",
    "/sys/devices",
    "/sys/bus",
    "/sys/class",
    "/sys/module/nvidia",
    "/dev/urandom",
    "/dev/random",
];

/// The cards of NVIDIA and the render nodes of the others. `/dev/null` is what programs write to when
/// they mean to write nothing.
const DEVICES: &[&str] = &["/dev/null", "/dev/dri", "/dev/kfd", "/dev/nvidia-caps"];

/// The rules for one engine that listens on `port`. `libraries` is its `LD_LIBRARY_PATH`.
pub(crate) fn sandbox(
    prepared: &PreparedEngine,
    key_file: &Path,
    home: &Path,
    libraries: Option<&OsStr>,
    port: u16,
) -> Sandbox {
    let mut read: Vec<PathBuf> = SYSTEM.iter().map(PathBuf::from).collect();
    // Beside the program lie its own libraries, and nothing of anybody else.
    read.extend(prepared.binary_path.parent().map(Path::to_path_buf));
    read.extend(resolved(&prepared.binary_path).and_then(|path| path.parent().map(Path::to_path_buf)));
    read.extend(libraries.into_iter().flat_map(std::env::split_paths).filter(|path| path.is_absolute()));
    read.extend(wire::split::files(&prepared.model_path));
    read.extend([key_file.to_owned(), home.to_owned()]);
    read.extend(projector(&prepared.flags));
    let mut devices: Vec<PathBuf> = DEVICES.iter().map(PathBuf::from).collect();
    devices.extend(nvidia_devices());
    Sandbox { read, devices, port: Some(port) }
}

fn resolved(path: &Path) -> Option<PathBuf> {
    std::fs::canonicalize(path).ok()
}

/// A second model file that some engines load.
fn projector(flags: &[String]) -> Option<PathBuf> {
    let at = flags.iter().position(|flag| flag == "--mmproj")?;
    flags.get(at + 1).map(PathBuf::from)
}

fn nvidia_devices() -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir("/dev") else { return Vec::new() };
    let is_nvidia = |path: &PathBuf| {
        path.file_name().and_then(OsStr::to_str).is_some_and(|name| name.starts_with("nvidia"))
    };
    entries.filter_map(Result::ok).map(|entry| entry.path()).filter(is_nvidia).collect()
}
