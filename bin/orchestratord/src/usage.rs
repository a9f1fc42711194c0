//! Usage over restarts.

use std::path::{Path, PathBuf};

use dispatch::Dispatch;
use tokio_util::sync::CancellationToken;
use wire::usage::UsageReport;

use crate::http::unix_seconds;
use crate::kept;

const WHAT: &str = "the usage so far";

/// Takes in what was counted before; when counting began.
pub(crate) fn restore(file: &Path, dispatch: &Dispatch) -> u64 {
    let Some(report) = kept::read::<UsageReport>(file, WHAT) else { return unix_seconds() };
    dispatch.add_usage(report.usage);
    report.since
}

/// Keeps the file current until `stop`, and once more then.
pub(crate) async fn keep(file: PathBuf, dispatch: Dispatch, since: u64, stop: CancellationToken) {
    kept::keep(file, WHAT, || UsageReport { since, usage: dispatch.usage() }, stop).await;
}
