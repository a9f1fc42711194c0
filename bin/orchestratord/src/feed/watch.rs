//! Wakes the scanner when the directory changes. Never the truth: inotify drops events, and a
//! directory that was removed and made again goes silent, so the watch is renewed at every scan.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

/// A watch on one directory, by inode.
pub(super) struct DirWatch {
    path: PathBuf,
    wake: Arc<Notify>,
    watcher: Option<(u64, RecommendedWatcher)>,
    is_missing: bool,
}

impl DirWatch {
    pub(super) fn new(path: PathBuf, wake: Arc<Notify>) -> Self {
        Self { path, wake, watcher: None, is_missing: false }
    }

    /// Watches the directory that is there now; blocking.
    pub(super) fn renew(mut self) -> Self {
        let inode = std::fs::metadata(&self.path).map(|meta| meta.ino()).ok();
        self.is_missing = inode.is_none();
        if inode.is_none() || inode != self.watcher.as_ref().map(|(inode, _)| *inode) {
            self.watcher = inode.and_then(|inode| Some((inode, self.watch()?)));
        }
        self
    }

    /// There was no directory to watch, and nothing will tell when there is one.
    pub(super) fn is_missing(&self) -> bool {
        self.is_missing
    }

    fn watch(&self) -> Option<RecommendedWatcher> {
        let wake = Arc::clone(&self.wake);
        // Our own reading shows up as access events; waking on them would never end.
        let on_event = move |event: notify::Result<notify::Event>| match event {
            Ok(event) if matches!(event.kind, EventKind::Access(_)) => {}
            _ => wake.notify_one(),
        };
        let watcher = notify::recommended_watcher(on_event).and_then(|mut watcher| {
            watcher.watch(&self.path, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        match watcher {
            Ok(watcher) => Some(watcher),
            Err(error) => {
                tracing::warn!(dir = %self.path.display(), %error, "no file watch; scanning at intervals instead");
                None
            }
        }
    }
}
