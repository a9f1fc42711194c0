//! Small files over restarts, beside the journal: written every five seconds that they changed, and at the
//! end. What came since is lost with a crash; a file that cannot be read, or that a later version wrote, is
//! set aside as it is, never a reason not to start.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

const PERIOD: Duration = Duration::from_secs(5);

/// What every kept file says, whatever else is in it.
#[derive(Deserialize)]
struct Versioned {
    #[serde(default = "first_version")]
    version: u32,
}

/// Of a file that says none: the first version of some did not.
pub(crate) fn first_version() -> u32 {
    1
}

/// What was kept in a version up to `newest`; `None` where nothing was, or nothing that can be read.
pub(crate) fn read<T: DeserializeOwned>(file: &Path, what: &str, newest: u32) -> Option<T> {
    let text = match std::fs::read(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(file = %file.display(), %error, "cannot read {what}; beginning anew");
            return None;
        }
    };
    parse(&text, newest)
        .inspect_err(|error| {
            let kept = std::fs::rename(file, file.with_extension("json.unreadable")).is_ok();
            tracing::warn!(file = %file.display(), error, kept, "cannot read {what}; beginning anew");
        })
        .ok()
}

fn parse<T: DeserializeOwned>(text: &[u8], newest: u32) -> Result<T, String> {
    let Versioned { version } = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if !(1..=newest).contains(&version) {
        return Err(format!("it has version {version}, and this program reads up to {newest}"));
    }
    serde_json::from_slice(text).map_err(|error| error.to_string())
}

/// Keeps the file current until `stop`, and once more then.
pub(crate) async fn keep<T>(file: PathBuf, what: &str, now: impl Fn() -> T, stop: CancellationToken)
where
    T: Serialize + PartialEq,
{
    let mut written = now();
    loop {
        let stopping = stop.run_until_cancelled(tokio::time::sleep(PERIOD)).await.is_none();
        let current = now();
        if current != written {
            let (text, to) = (serde_json::to_vec(&current), file.clone());
            match tokio::task::spawn_blocking(move || write(&to, &text?)).await {
                Ok(Ok(())) => written = current,
                Ok(Err(error)) => tracing::warn!(file = %file.display(), %error, "cannot write {what}"),
                Err(_) => return, // the runtime is shutting down
            }
        }
        if stopping {
            return;
        }
    }
}

/// A new file in place of the old one.
fn write(file: &Path, text: &[u8]) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let new = file.with_extension("json.new");
    let mut out =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    out.write_all(text)?;
    out.sync_all()?;
    std::fs::rename(&new, file)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// ORCHD-USAGE-002
    #[tokio::test(start_paused = true)]
    async fn what_changed_is_in_its_file_five_seconds_later_and_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("count.json");
        let count = Arc::new(AtomicU32::new(0));
        let (now, stop) = (Arc::clone(&count), CancellationToken::new());
        let keeps = keep(file.clone(), "a count", move || now.load(Ordering::Relaxed), stop.clone());
        let keeps = tokio::spawn(keeps);
        tokio::time::sleep(Duration::from_millis(15_100)).await;
        assert!(!file.exists(), "nothing has changed");
        count.store(7, Ordering::Relaxed);
        let changed = tokio::time::Instant::now();
        while std::fs::read_to_string(&file).ok().as_deref() != Some("7") {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // Paused time stands still while the file is written.
        let took = changed.elapsed();
        assert!(took <= Duration::from_secs(6), "{took:?}");
        count.store(8, Ordering::Relaxed);
        stop.cancel();
        keeps.await.unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "8");
    }
}
