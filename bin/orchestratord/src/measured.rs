//! What was measured of each pool, over restarts: what a task that waits is told of its start comes of it.

use std::path::{Path, PathBuf};

use dispatch::{Dispatch, PoolMeasured};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::kept;

const WHAT: &str = "what was measured of the pools";
/// What is written.
const VERSION: u32 = 1;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct File {
    version: u32,
    pools: Vec<PoolMeasured>,
}

/// Takes in what was measured before.
pub(crate) fn restore(file: &Path, dispatch: &Dispatch) {
    if let Some(kept) = kept::read::<File>(file, WHAT, VERSION) {
        dispatch.recall(kept.pools);
    }
}

/// Keeps the file current until `stop`, and once more then.
pub(crate) async fn keep(file: PathBuf, dispatch: Dispatch, stop: CancellationToken) {
    kept::keep(file, WHAT, || File { version: VERSION, pools: dispatch.measured() }, stop).await;
}
