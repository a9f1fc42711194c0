//! Source trees and tools: what engines are built from and with, and need no more once they are built. They
//! stay for the engines that stay, so that another build of one of those fetches nothing.

use std::path::{Path, PathBuf};

use super::{Removal, size_below};
use crate::manifest::Manifest;
use crate::source;
use crate::store::{Lock, Store};

/// Removes (or with `dry_run` names) the source trees and tools that none of the engines that `stay` was built
/// with. Where a build goes on, or runs, everything stays: what it needs is not written down yet.
pub(super) fn collect(
    store: &Store,
    cache: &Path,
    stay: &[String],
    goes_on: bool,
    dry_run: bool,
) -> Vec<Removal> {
    // Who cannot be asked may need anything.
    let manifests: Option<Vec<Manifest>> = stay.iter().map(|digest| store.manifest(digest)).collect();
    let Some(manifests) = manifests.filter(|_| !goes_on) else { return Vec::new() };
    let unneeded: Vec<(PathBuf, &str)> = trees(cache)
        .into_iter()
        .filter(|tree| !manifests.iter().any(|m| source::home(&m.source, cache).as_ref() == Some(tree)))
        .map(|tree| (tree, "no engine that stays was built from this source"))
        .chain(
            tools(cache)
                .into_iter()
                .filter(|tool| !manifests.iter().any(|manifest| built_with(manifest, tool)))
                .map(|tool| (tool, "no engine that stays was built with these tools")),
        )
        .collect();
    if unneeded.is_empty() {
        return Vec::new();
    }
    let Some(lock) = store.try_own_materials() else {
        let reason = "an engine is being built".to_owned();
        return vec![Removal { what: "sources and tools".to_owned(), removed: false, reason, bytes: 0 }];
    };
    unneeded.into_iter().map(|(path, reason)| remove(&path, reason, dry_run, &lock)).collect()
}

/// Under a name that nobody looks for first: what is half gone must not be taken for whole.
fn remove(path: &Path, reason: &str, dry_run: bool, _alone: &Lock) -> Removal {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let bytes = size_below(path);
    let removed = if dry_run {
        Ok(())
    } else {
        let gone = path.with_file_name(format!(".new-gone-{name}"));
        std::fs::rename(path, &gone).and_then(|()| std::fs::remove_dir_all(&gone))
    };
    match removed {
        Ok(()) => Removal { what: name, removed: true, reason: reason.to_owned(), bytes },
        Err(error) => {
            Removal { what: name, removed: false, reason: format!("it cannot be removed: {error}"), bytes: 0 }
        }
    }
}

/// Whole source trees: a commit's or an archive's.
fn trees(cache: &Path) -> Vec<PathBuf> {
    directories(&cache.join("sources"), |name| {
        let pin = name.strip_prefix("git-").map_or(name, |pin| pin.trim_end_matches("-submodules"));
        [40, 64].contains(&pin.len()) && pin.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

/// Tools that were installed here, each version in a directory of its own.
fn tools(cache: &Path) -> Vec<PathBuf> {
    directories(&cache.join("tools"), |name| name.starts_with("cmake-") || name.starts_with("cuda-"))
}

fn directories(dir: &Path, wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let named = entries.filter(|entry| entry.file_name().to_str().is_some_and(&wanted));
    let mut all: Vec<PathBuf> = named.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    all.sort();
    all
}

/// `cmake-4.4.4-ninja-1.13.2` for one that CMake 4.4.4 built, `cuda-13.0.88` for one whose nvcc was that.
fn built_with(manifest: &Manifest, tool: &Path) -> bool {
    let name = tool.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let version = name.split('-').nth(1).unwrap_or_default();
    match name.strip_prefix("cuda-") {
        Some(version) => manifest.inputs.to_string().contains(version),
        None => manifest.cmake.split_whitespace().any(|word| word == version),
    }
}
