//! Usage over restarts: written beside the journal every half minute that it changed, and at the end.
//! What was counted since is lost with a crash; a file that cannot be read is set aside, never a
//! reason not to start.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dispatch::Dispatch;
use tokio_util::sync::CancellationToken;
use wire::usage::UsageReport;

use crate::http::unix_seconds;

const PERIOD: Duration = Duration::from_secs(30);

/// Takes in what was counted before; when counting began.
pub(crate) fn restore(file: &Path, dispatch: &Dispatch) -> u64 {
    let text = match std::fs::read(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return unix_seconds(),
        Err(error) => {
            tracing::warn!(file = %file.display(), %error, "cannot read the usage so far; counting anew");
            return unix_seconds();
        }
    };
    match serde_json::from_slice::<UsageReport>(&text) {
        Ok(report) => {
            dispatch.add_usage(report.usage);
            report.since
        }
        Err(error) => {
            let aside = file.with_extension("json.unreadable");
            let kept = std::fs::rename(file, &aside).is_ok();
            tracing::warn!(file = %file.display(), %error, kept, "the usage so far is unreadable; counting anew");
            unix_seconds()
        }
    }
}

/// Keeps the file current until `stop`, and once more then.
pub(crate) async fn keep(file: PathBuf, dispatch: Dispatch, since: u64, stop: CancellationToken) {
    let mut written = dispatch.usage();
    loop {
        let stopping = stop.run_until_cancelled(tokio::time::sleep(PERIOD)).await.is_none();
        let usage = dispatch.usage();
        if usage != written {
            let (report, to) = (UsageReport { since, usage: usage.clone() }, file.clone());
            match tokio::task::spawn_blocking(move || write(&to, &report)).await {
                Ok(Ok(())) => written = usage,
                Ok(Err(error)) => tracing::warn!(file = %file.display(), %error, "cannot write the usage"),
                Err(_) => return, // the runtime is shutting down
            }
        }
        if stopping {
            return;
        }
    }
}

/// A new file in place of the old one.
fn write(file: &Path, report: &UsageReport) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let new = file.with_extension("json.new");
    let text = serde_json::to_vec(report)?;
    let mut out =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    out.write_all(&text)?;
    out.sync_all()?;
    std::fs::rename(&new, file)
}
