//! Puts what was fetched onto the disk behind everybody's back. A model has its final name when its bytes are
//! verified; waiting for the disk as well would make a download take as long as the disk does, and the engine
//! that is to load it reads it from memory. Until it is on the disk its digest is believed in this life of
//! the machine alone, so that after a power cut the file is hashed again before it is used.

use std::path::PathBuf;
use std::time::Duration;

use crate::digest::DigestCache;

/// By then the system has written most of it by itself (it lets nothing wait for longer than 30 seconds by
/// default), and the engine that loads now does not wait for the disk.
const AFTER: Duration = Duration::from_secs(40);

/// Settles those of `files` that need it, on a thread that nobody waits for: where the program ends before,
/// whoever stages the model next does it.
pub(super) fn later(digests: &DigestCache, files: impl Iterator<Item = PathBuf>) {
    let files: Vec<PathBuf> = files.filter(|file| digests.is_unsettled(file)).collect();
    if files.is_empty() {
        return;
    }
    let digests = digests.clone();
    let age = files.iter().filter_map(|file| file.metadata().ok()?.modified().ok()?.elapsed().ok()).min();
    let spawned = std::thread::Builder::new().name("settle".to_owned()).spawn(move || {
        std::thread::sleep(AFTER.saturating_sub(age.unwrap_or_default()));
        now(&digests, &files);
    });
    if let Err(error) = spawned {
        tracing::debug!(%error, "a model is not put onto the disk now; the next start does it");
    }
}

fn now(digests: &DigestCache, files: &[PathBuf]) {
    for file in files {
        if let Err(error) = digests.settle(file) {
            let file = file.display();
            tracing::warn!(%file, %error, "a model cannot be put onto the disk; it is hashed again after the machine went down");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file_memory::{FileMemory, FileState};

    /// MPROV-025
    #[test]
    fn what_is_on_the_disk_is_believed_for_good_and_what_changed_is_not_known() {
        let dir = tempfile::tempdir().unwrap();
        let (kept, changed) = (dir.path().join("kept"), dir.path().join("changed"));
        let digests = DigestCache::new(dir.path().join("digests"));
        for path in [&kept, &changed] {
            std::fs::write(path, "bytes").unwrap();
            digests.know_until_down(path, &"a".repeat(64));
            assert!(digests.is_unsettled(path));
        }
        std::fs::write(&changed, "other").unwrap();
        std::fs::File::open(&changed).unwrap().set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        now(&digests, &[kept.clone(), changed.clone(), dir.path().join("gone")]);
        let memory = FileMemory::new(dir.path().join("digests"));
        let known = |path| memory.recall(&FileState::of(path).unwrap());
        assert_eq!((known(&kept), digests.is_unsettled(&kept)), (Some("a".repeat(64)), false));
        assert_eq!(known(&changed), None);
    }
}
