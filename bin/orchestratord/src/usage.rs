//! Usage over restarts.

use std::path::{Path, PathBuf};

use dispatch::Dispatch;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use wire::usage::UsageRow;

use crate::http::unix_seconds;
use crate::kept;

const WHAT: &str = "the usage so far";
/// What is written.
const VERSION: u32 = 1;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct File {
    /// Absent from files of the time before it was written down.
    #[serde(default = "kept::first_version")]
    version: u32,
    /// When counting began, in seconds since the epoch.
    since: u64,
    usage: Vec<UsageRow>,
}

/// Takes in what was counted before; when counting began.
pub(crate) fn restore(file: &Path, dispatch: &Dispatch) -> u64 {
    let Some(kept) = kept::read::<File>(file, WHAT, VERSION) else { return unix_seconds() };
    dispatch.add_usage(kept.usage);
    kept.since
}

/// Keeps the file current until `stop`, and once more then.
pub(crate) async fn keep(file: PathBuf, dispatch: Dispatch, since: u64, stop: CancellationToken) {
    let now = || File { version: VERSION, since, usage: dispatch.usage() };
    kept::keep(file, WHAT, now, stop).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ORCHD-JOURNAL-009
    #[test]
    fn usage_that_a_released_version_kept_is_read_and_that_of_a_later_one_is_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("usage.json");
        let read = |text: &str| {
            std::fs::write(&file, text).unwrap();
            kept::read::<File>(&file, WHAT, VERSION)
        };
        let first = include_str!("../tests/fixtures/usage-v1.json");
        for text in [include_str!("../tests/fixtures/usage-unversioned.json"), first] {
            let kept = read(text).unwrap();
            assert_eq!((kept.version, kept.since, kept.usage.len()), (1, 1_795_875_784, 1));
            assert_eq!((kept.usage[0].caller.as_str(), kept.usage[0].tokens_out), ("local", 8));
        }
        for other in ["\"version\":2", "\"version\":0", "\"version\":\"x\""] {
            let text = first.replace("\"version\":1", other);
            assert_ne!(text, first);
            assert_eq!(read(&text), None, "{other}");
            assert!(!file.exists(), "{other}");
            assert_eq!(std::fs::read_to_string(dir.path().join("usage.json.unreadable")).unwrap(), text);
        }
    }
}
