//! Values read from files that are read again when the files change: tokens, certificates. What
//! cannot be read leaves the value as it was, and is said once per change.
//!
//! Looks at the files once a second instead of watching them: a watch goes silent when a file is
//! replaced in certain ways, and a revoked token must not live on that.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Between two looks.
const PERIOD: Duration = Duration::from_secs(1);

/// The value as it was last read. Cheap to clone.
#[derive(Debug)]
pub(crate) struct Current<T>(watch::Receiver<Arc<T>>);

impl<T> Clone for Current<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Current<T> {
    pub(crate) fn get(&self) -> Arc<T> {
        Arc::clone(&self.0.borrow())
    }
}

/// What tells one version of a file from another: device, inode, size, change time.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

/// Keeps `first`, which was just read from `files`, current until `stop`.
pub(crate) fn follow<T, E>(
    what: &'static str,
    files: Vec<PathBuf>,
    first: T,
    read: impl Fn() -> Result<T, E> + Send + Sync + 'static,
    stop: CancellationToken,
) -> (Current<T>, impl Future<Output = ()> + Send)
where
    T: Send + Sync + 'static,
    E: fmt::Display + Send + 'static,
{
    let (sender, receiver) = watch::channel(Arc::new(first));
    let read = Arc::new(read);
    // Taken before the task runs, so that a change from now on is seen.
    let mut seen = stamps(&files);
    let task = async move {
        while stop.run_until_cancelled(tokio::time::sleep(PERIOD)).await.is_some() {
            let (before, files, read) = (seen.clone(), files.clone(), Arc::clone(&read));
            let looked = tokio::task::spawn_blocking(move || {
                let now = stamps(&files);
                (now != before).then(|| (now, read()))
            });
            match looked.await {
                Ok(None) => {}
                Ok(Some((now, Ok(value)))) => {
                    seen = now;
                    sender.send_replace(Arc::new(value));
                    tracing::info!(what, "read again, because the file changed");
                }
                Ok(Some((now, Err(error)))) => {
                    seen = now;
                    tracing::error!(what, %error, "the changed file cannot be used; the one before stays in force");
                }
                Err(_) => return, // the runtime is shutting down
            }
        }
    };
    (Current(receiver), task)
}

fn stamps(files: &[PathBuf]) -> Vec<Stamp> {
    files.iter().map(|file| stamp(file)).collect()
}

fn stamp(file: &Path) -> Stamp {
    let meta = std::fs::metadata(file).ok()?;
    Some((meta.dev(), meta.ino(), meta.len(), meta.ctime(), meta.ctime_nsec()))
}
