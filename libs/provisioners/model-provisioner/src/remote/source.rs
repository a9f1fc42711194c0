//! What a reference means once it is resolved: the files to have, where they are, and who names their digests.

use super::FetchError;
use super::choose;
use super::fetch::Target;
use super::hub::Found;
use super::store::local_name;
use super::url::{Rule, SafeUrl};
use crate::digest::of_model;

/// A model to have, and where from.
pub(super) struct Source {
    /// Its file, or all files of a split set.
    pub(super) targets: Vec<Target>,
    pub(super) repo: Option<String>,
    pub(super) commit: Option<String>,
    /// What the targets are called there.
    pub(super) files: Vec<String>,
    /// The configured digest.
    pub(super) pinned: Option<String>,
}

impl Source {
    /// The model's digest, as far as somebody names it before anything is fetched.
    pub(super) fn digest(&self) -> Option<String> {
        let digests: Option<Vec<&str>> = self.targets.iter().map(|target| target.sha256.as_deref()).collect();
        digests.map(|digests| of_model(digests.into_iter())).or_else(|| self.pinned.clone())
    }

    pub(super) fn size(&self) -> Option<u64> {
        self.targets.iter().map(|target| target.size).sum()
    }

    pub(super) fn url(&self) -> String {
        self.targets.first().map(|target| target.url.to_string()).unwrap_or_default()
    }
}

pub(super) fn target_of(found: Found) -> Target {
    Target { name: local_name(&found.file), url: found.url, size: found.size, sha256: found.sha256 }
}

/// A model at an address; the other files of a split set are beside the first.
pub(super) fn addressed(address: &str, rule: Rule, pinned: Option<&str>) -> Result<Source, FetchError> {
    let first: SafeUrl = rule.admit(address)?;
    let files = choose::set_of(&first.file_name())?;
    let mut targets = Vec::new();
    for file in &files {
        let url = first.beside(file, rule)?;
        targets.push(Target { name: local_name(file), url, size: None, sha256: None });
    }
    Ok(Source { targets, repo: None, commit: None, files, pinned: pinned.map(str::to_owned) })
}

/// The configured digest wins; one that contradicts the hub's can never be satisfied.
pub(super) fn with_pin(mut source: Source) -> Result<Source, FetchError> {
    let Some(pinned) = source.pinned.take() else { return Ok(source) };
    if let Some(hub) = source.digest().filter(|hub| *hub != pinned) {
        return Err(FetchError::WrongDigest { url: source.url(), expected: pinned, actual: hub });
    }
    if let [only] = source.targets.as_mut_slice() {
        only.sha256.get_or_insert_with(|| pinned.clone());
    }
    source.pinned = Some(pinned);
    Ok(source)
}
