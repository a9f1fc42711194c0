//! Puts what was written onto the disk while more comes. Left to the end, the disk is waited for when nothing
//! else is left to do, and a file of some GiB waits for many seconds.

use std::fs::File;
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};

/// Written between two requests.
const EVERY: u64 = 64 << 20;

/// Asks a thread of its own to flush one file, at most one request ahead.
#[derive(Debug)]
pub(super) struct Flusher {
    requests: SyncSender<()>,
    unflushed: u64,
}

impl Flusher {
    /// For the file at `path`. What goes wrong on the disk is not reported here: the owner's own last
    /// `sync_all` reports it, because this one has an open file of its own.
    pub(super) fn start(path: &Path) -> std::io::Result<Self> {
        let file = File::options().write(true).open(path)?;
        let (requests, received) = sync_channel(1);
        // Nobody waits for its end: what it does last, the owner's own flush waits for.
        std::thread::Builder::new().name("flush".to_owned()).spawn(move || {
            for () in received {
                let _ = file.sync_data();
            }
        })?;
        Ok(Self { requests, unflushed: 0 })
    }

    /// So much more is written.
    pub(super) fn wrote(&mut self, bytes: usize) {
        self.unflushed += bytes as u64;
        // While one waits already, the next comes later.
        if self.unflushed >= EVERY && self.requests.try_send(()).is_ok() {
            self.unflushed = 0;
        }
    }
}
