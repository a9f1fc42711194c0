//! A source distribution from the Python package index, fetched by name with pip.
//!
//! `pip download` insists on running the package's build backend for metadata. A stand-in backend on
//! `PYTHONPATH` answers in its place, so that no code of the package runs at all, and the hash in the
//! requirement keeps pip from accepting another file. The hash is checked again afterwards.

use std::path::{Path, PathBuf};
use std::time::Duration;

use wire::config::SdistSource;

use super::{Fetch, archive, helper_failed, unpack, verify};
use crate::error::SourceFailure;
use crate::helper::{Helper, Tool};

/// Of [`SdistSource::pinned`], measured.
pub(super) const PINNED_COST: &str = "73 MiB to fetch, 217 MiB unpacked";
/// Both together: the packed one goes when it is unpacked.
pub(super) const PINNED_MIB: u64 = 73 + 217;
const LIMIT: Duration = Duration::from_secs(1800);

pub(super) fn fetch(
    source: &SdistSource,
    temp: &Path,
    tree: &Path,
    fetch: &Fetch<'_>,
) -> Result<(), SourceFailure> {
    let Some(python) = fetch.host.find("python3") else {
        return Err(SourceFailure::fetch("python3 is not installed"));
    };
    fetch.step.doing(format!("fetching {} {} with pip", source.package, source.version));
    let (shim, requirement, downloads) =
        (temp.join("shim"), temp.join("requirement.txt"), temp.join("download"));
    let wanted = format!("{}=={} --hash=sha256:{}\n", source.package, source.version, source.sha256);
    write_shim(&shim, source).map_err(SourceFailure::cache("write", &shim))?;
    std::fs::write(&requirement, wanted).map_err(SourceFailure::cache("write", &requirement))?;
    Helper::new(fetch.host, Tool::Python, python, fetch.cancel)
        .env("PYTHONPATH", &shim)
        .dir(temp)
        .limit(LIMIT)
        .args(["-m", "pip", "download", "--no-input", "--disable-pip-version-check", "--no-deps"])
        .args(["--no-binary", ":all:", "--no-build-isolation", "--require-hashes"])
        .args([Path::new("-r"), &requirement, Path::new("-d"), &downloads])
        .run(&mut |_| ())
        .map_err(|error| match helper_failed(error) {
            // pip's own refusal of a wrong hash is the same finding as ours.
            SourceFailure::Next(_, reason) if reason.contains("DO NOT MATCH") => {
                SourceFailure::verification(reason)
            }
            other => other,
        })?;
    let file = only_file(&downloads)
        .ok_or_else(|| SourceFailure::fetch("pip succeeded but left no single .tar.gz file"))?;
    verify(&file, &source.sha256, fetch.cancel)?;
    fetch.step.doing("unpacking the source".to_owned());
    unpack::tar_gz(&file, tree, fetch.cancel).map_err(|problem| archive::unpack_failed(problem, fetch))
}

/// A build backend that knows nothing but the name and version pip asked for.
fn write_shim(dir: &Path, source: &SdistSource) -> std::io::Result<()> {
    let package = dir.join("scikit_build_core");
    std::fs::create_dir_all(&package)?;
    std::fs::write(package.join("__init__.py"), "")?;
    let folder = format!("{}-{}.dist-info", source.package.replace(['-', '.'], "_"), source.version);
    let metadata =
        format!("Metadata-Version: 2.1\\nName: {}\\nVersion: {}\\n", source.package, source.version);
    let backend = format!(
        "import os\n\
         def get_requires_for_build_wheel(config_settings=None):\n    return []\n\
         def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):\n    \
         folder = os.path.join(metadata_directory, \"{folder}\")\n    \
         os.makedirs(folder)\n    \
         with open(os.path.join(folder, \"METADATA\"), \"w\") as f:\n        \
         f.write(\"{metadata}\")\n    \
         return \"{folder}\"\n"
    );
    std::fs::write(package.join("build.py"), backend)
}

fn only_file(dir: &Path) -> Option<PathBuf> {
    let mut files = std::fs::read_dir(dir).ok()?.flatten().map(|entry| entry.path());
    let first = files.next()?;
    let is_tarball = first.to_string_lossy().ends_with(".tar.gz");
    (is_tarball && files.next().is_none()).then_some(first)
}
