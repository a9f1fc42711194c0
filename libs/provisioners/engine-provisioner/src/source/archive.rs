//! A tarball from `https:` or `file:`, hashed while it streams, used only when the hash is the pinned one.

use std::path::{Path, PathBuf};

use provisioners_model_provisioner::{FetchError, Patience, Pinned, StageEvent, fetch_pinned};
use wire::config::ArchiveSource;

use super::{Fetch, mismatch, unpack, verify};
use crate::error::{EnsureError, SourceFailure};

pub(super) fn fetch(source: &ArchiveSource, tree: &Path, fetch: &Fetch<'_>) -> Result<(), SourceFailure> {
    let unpack = |file: &Path| {
        fetch.step.doing("unpacking the source".to_owned());
        unpack::tar_gz(file, tree, fetch.cancel).map_err(|problem| unpack_failed(problem, fetch))
    };
    if let Some(path) = source.url.strip_prefix("file:") {
        let path = PathBuf::from(path.strip_prefix("//").unwrap_or(path));
        if !path.is_file() {
            return Err(SourceFailure::fetch(format!("{} does not exist or is not a file", path.display())));
        }
        verify(&path, &source.sha256, fetch.cancel)?;
        unpack(&path)
    } else if source.url.starts_with("https://") {
        let file = download(source, fetch)?;
        unpack(file.path())?;
        file.discard().map_err(failed)
    } else {
        Err(SourceFailure::fetch("only https:// and file: are fetched"))
    }
}

pub(super) fn unpack_failed(problem: String, fetch: &Fetch<'_>) -> SourceFailure {
    if fetch.cancel.is_cancelled() {
        return EnsureError::Cancelled.into();
    }
    SourceFailure::verification(format!("the archive was not unpacked: {problem}"))
}

/// Resumed where it broke off, and given up at once when nobody wants it any more.
fn download(source: &ArchiveSource, fetch: &Fetch<'_>) -> Result<Pinned, SourceFailure> {
    let name = source.url.rsplit('/').next().unwrap_or("archive");
    fetch.step.doing(format!("downloading {name}"));
    let on_event = |event: StageEvent| match event {
        StageEvent::Progress(p) if p.bytes_total == 0 => fetch.step.doing(p.description),
        StageEvent::Progress(p) => fetch.step.progress(|| p.description, p.bytes_done, p.bytes_total),
        StageEvent::Notice(text) => fetch.step.doing(text),
    };
    let dir = fetch.cache.join("sources");
    fetch_pinned(&source.url, &source.sha256, &dir, Patience::default(), &on_event, fetch.cancel)
        .map_err(failed)
}

fn failed(error: FetchError) -> SourceFailure {
    match error {
        FetchError::Cancelled => EnsureError::Cancelled.into(),
        FetchError::WrongDigest { expected, actual, .. } => mismatch(&actual, &expected),
        FetchError::Local { action, path, source } => SourceFailure::cache(action, path)(source),
        other => SourceFailure::fetch(other.to_string()),
    }
}
