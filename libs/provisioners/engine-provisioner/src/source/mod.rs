//! Where the engine's source tree comes from. Each kind fetches into `sources/<digest>/` of the cache,
//! whole or not at all, and only what its pin says.

mod archive;
mod git;
mod sdist;
mod unpack;

use std::path::{Path, PathBuf};

use provisioners_model_provisioner::{Cancel, DigestError, sha256_file};
use wire::config::{EngineSource, SdistSource};

use crate::bundle;
use crate::error::{EnsureError, SourceFailure};
use crate::helper::HelperError;
use crate::host::Host;
use crate::observer::Step;
use crate::plan::mib;
use crate::store::Store;
use crate::upkeep::size_below;

/// What fetching needs.
pub(crate) struct Fetch<'a> {
    pub(crate) host: &'a Host,
    pub(crate) cache: &'a Path,
    pub(crate) step: &'a Step<'a>,
    pub(crate) cancel: &'a Cancel,
}

/// The pin as text: what the engine digest is computed from.
pub(crate) fn identity(source: &EngineSource) -> String {
    match source {
        EngineSource::Path(path) => format!("path:{}", path.binary.display()),
        EngineSource::Git(git) => {
            let submodules = if git.submodules { ":submodules" } else { "" };
            format!("git:{}{submodules}", git.commit.to_ascii_lowercase())
        }
        EngineSource::Archive(a) => {
            let binary = a.binary.as_ref().map_or_else(String::new, |path| format!(":{}", path.display()));
            format!("{}:{}{binary}", a.sha256.to_ascii_lowercase(), a.subdir.display())
        }
        EngineSource::Sdist(s) => format!("{}:{}", s.sha256.to_ascii_lowercase(), s.subdir.display()),
    }
}

/// The pin's own digest, for the engine's commit field and the cache.
pub(crate) fn pin(source: &EngineSource) -> String {
    match source {
        EngineSource::Path(_) => String::new(),
        EngineSource::Git(git) => git.commit.to_ascii_lowercase(),
        EngineSource::Archive(archive) => archive.sha256.to_ascii_lowercase(),
        EngineSource::Sdist(sdist) => sdist.sha256.to_ascii_lowercase(),
    }
}

/// For people and errors, as `sdist llama-cpp-python 0.3.36`.
pub(crate) fn describe(source: &EngineSource) -> String {
    match source {
        EngineSource::Path(path) => format!("path {}", path.binary.display()),
        EngineSource::Git(git) => format!("git {} {}", git.repo, git.reference),
        EngineSource::Archive(archive) => format!("archive {}", archive.url),
        EngineSource::Sdist(sdist) => format!("sdist {} {}", sdist.package, sdist.version),
    }
}

/// The middle of the engine version, as `0.3.36` in `llamacpp-0.3.36-ab12…`.
pub(crate) fn label(source: &EngineSource) -> String {
    let text = match source {
        EngineSource::Path(_) => "path".to_owned(),
        EngineSource::Git(git) => git.reference.clone(),
        EngineSource::Archive(archive) => archive.sha256.chars().take(8).collect(),
        EngineSource::Sdist(sdist) => sdist.version.clone(),
    };
    text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '_' }).collect()
}

/// Where the tree of a source is kept; none for an existing binary.
pub(crate) fn home(source: &EngineSource, cache: &Path) -> Option<PathBuf> {
    let name = match source {
        EngineSource::Path(_) => return None,
        EngineSource::Git(git) if git.submodules => format!("git-{}-submodules", pin(source)),
        EngineSource::Git(_) => format!("git-{}", pin(source)),
        EngineSource::Archive(_) | EngineSource::Sdist(_) => pin(source),
    };
    Some(cache.join("sources").join(name))
}

/// What is missing of a source when the network is not to be used.
pub(crate) fn absent(source: &EngineSource, cache: &Path) -> Option<String> {
    let local = match source {
        EngineSource::Path(_) => true,
        EngineSource::Git(git) => Path::new(&git.repo).is_absolute(),
        EngineSource::Archive(archive) => archive.url.starts_with("file:"),
        EngineSource::Sdist(_) => false,
    };
    let home = home(source, cache)?;
    (!local && !home.exists())
        .then(|| format!("offline: neither the engine nor its source ({}) is in the cache", home.display()))
}

/// What is missing of a source that would come from this machine itself.
pub(crate) fn gone(source: &EngineSource, cache: &Path) -> Option<String> {
    if home(source, cache)?.exists() {
        return None;
    }
    let (path, there) = match source {
        EngineSource::Git(git) => (Path::new(&git.repo), Path::new(&git.repo).exists()),
        EngineSource::Archive(archive) => {
            let path = archive.url.strip_prefix("file:")?;
            let path = Path::new(path.strip_prefix("//").unwrap_or(path));
            (path, path.is_file())
        }
        EngineSource::Path(_) | EngineSource::Sdist(_) => return None,
    };
    (path.is_absolute() && !there).then(|| format!("{} is not there", path.display()))
}

/// `reason`, and why an engine from a bundle does not help where one of this source is there.
pub(crate) fn with_unfit(reason: String, source: &EngineSource, cache: &Path, cpu: &str) -> String {
    match bundle::unfit(&Store::new(cache), source, cpu) {
        Some(unfit) => format!("{reason}; {unfit}"),
        None => reason,
    }
}

/// What fetching it costs, where that is known on this machine.
pub(crate) fn cost(source: &EngineSource, cache: &Path) -> Option<String> {
    if let Some(home) = home(source, cache).filter(|home| home.exists()) {
        return Some(format!("it is in the cache, {}", mib(size_below(&home))));
    }
    match source {
        EngineSource::Sdist(sdist) if *sdist == SdistSource::pinned() => Some(sdist::PINNED_COST.to_owned()),
        EngineSource::Archive(archive) => {
            let path = archive.url.strip_prefix("file:")?;
            Some(match Path::new(path.trim_start_matches("//")).metadata() {
                Ok(file) => format!("{} here", mib(file.len())),
                Err(_) => "it is not there".to_owned(),
            })
        }
        EngineSource::Path(_) | EngineSource::Git(_) | EngineSource::Sdist(_) => None,
    }
}

/// What fetching and unpacking it takes in the cache. A source that is not the pinned one is allowed as much as
/// a whole tree of the engine, or where its packed size is known, four times that: the pinned one unpacks to three.
pub(crate) fn room(source: &EngineSource, cache: &Path) -> u64 {
    if home(source, cache).is_none_or(|home| home.exists()) {
        return 0;
    }
    let packed = match source {
        EngineSource::Archive(archive) => archive.url.strip_prefix("file:"),
        _ => None,
    };
    match packed.and_then(|path| Path::new(path.trim_start_matches("//")).metadata().ok()) {
        Some(file) => file.len().saturating_mul(4),
        None => sdist::PINNED_MIB << 20,
    }
}

/// Whether it has to be compiled, and with what is on this machine.
pub(crate) fn compiles(source: &EngineSource) -> bool {
    match source {
        EngineSource::Path(_) => false,
        EngineSource::Archive(archive) => archive.binary.is_none(),
        EngineSource::Git(_) | EngineSource::Sdist(_) => true,
    }
}

/// Fetches the tree, or finds it in the cache, and returns the directory with its CMakeLists.txt.
pub(crate) fn fetch(source: &EngineSource, fetch: &Fetch<'_>) -> Result<PathBuf, SourceFailure> {
    let root = fetch_tree(source, fetch)?;
    if root.join("CMakeLists.txt").is_file() {
        return Ok(root);
    }
    Err(SourceFailure::fetch(format!("there is no CMakeLists.txt in {}; check `subdir`", root.display())))
}

/// Fetches the tree, or finds it in the cache, and returns its `subdir`.
pub(crate) fn fetch_tree(source: &EngineSource, fetch: &Fetch<'_>) -> Result<PathBuf, SourceFailure> {
    let subdir = match source {
        EngineSource::Path(_) | EngineSource::Git(_) => PathBuf::new(),
        EngineSource::Archive(archive) => archive.subdir.clone(),
        EngineSource::Sdist(sdist) => sdist.subdir.clone(),
    };
    let Some(dir) = home(source, fetch.cache) else {
        return Err(SourceFailure::fetch("an existing binary has no source tree"));
    };
    let home = fetch.cache.join("sources");
    if !dir.exists() {
        std::fs::create_dir_all(&home).map_err(SourceFailure::cache("create", &home))?;
        let temp = tempfile::Builder::new().prefix(".new-").tempdir_in(&home);
        let temp = temp.map_err(SourceFailure::cache("create a directory in", &home))?;
        let tree = temp.path().join("tree");
        match source {
            EngineSource::Path(_) => {}
            EngineSource::Git(git) => git::fetch(git, &tree, fetch)?,
            EngineSource::Archive(archive) => archive::fetch(archive, &tree, fetch)?,
            EngineSource::Sdist(sdist) => sdist::fetch(sdist, temp.path(), &tree, fetch)?,
        }
        match std::fs::rename(&tree, &dir) {
            // Someone else fetched the same pin meanwhile.
            Err(_) if dir.exists() => {}
            other => other.map_err(SourceFailure::cache("move the source to", &dir))?,
        }
    }
    Ok(single_top(&dir).join(subdir))
}

/// Archives have one top directory; a git tree has many entries and is its own top.
fn single_top(dir: &Path) -> PathBuf {
    let entries: Vec<_> = std::fs::read_dir(dir).into_iter().flatten().flatten().take(2).collect();
    match entries.as_slice() {
        [only] if only.path().is_dir() => only.path(),
        _ => dir.to_path_buf(),
    }
}

/// Compares a fetched file with its pin.
fn verify(path: &Path, expected: &str, cancel: &Cancel) -> Result<(), SourceFailure> {
    match sha256_file(path, &mut |_| (), cancel) {
        Ok(actual) if actual.eq_ignore_ascii_case(expected) => Ok(()),
        Ok(actual) => Err(mismatch(&actual, expected)),
        Err(DigestError::Cancelled { .. }) => Err(EnsureError::Cancelled.into()),
        Err(DigestError::Read { path, source }) => Err(SourceFailure::cache("read", path)(source)),
    }
}

fn mismatch(actual: &str, expected: &str) -> SourceFailure {
    SourceFailure::verification(format!(
        "what was fetched has SHA-256 {actual}, pinned is {expected}; nothing of it was used. Correct the pin only if \
         you know why it changed"
    ))
}

/// A helper's failure as one of the source.
pub(crate) fn helper_failed(error: HelperError) -> SourceFailure {
    match error {
        HelperError::Cancelled => EnsureError::Cancelled.into(),
        other => SourceFailure::fetch(other.to_string()),
    }
}
