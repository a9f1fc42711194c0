//! Waiting for readers to come and go.

use std::sync::Arc;
use std::time::Duration;

use task_log::Readers;
use tokio::sync::watch;

use crate::core::TaskCore;
use crate::dispatcher::Shared;
use crate::ending::{CancelReason, Ending};

/// Resolves when nobody has read for `grace`, counted from now or since the last reader left.
pub(crate) async fn unread_for(mut readers: watch::Receiver<Readers>, grace: Duration) {
    loop {
        if readers.wait_for(|readers| readers.attached == 0).await.is_err() {
            return;
        }
        // Any change counts: a reader that came and went within the grace starts it anew.
        match tokio::time::timeout(grace, readers.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

/// Resolves when the readers of a task that is its connection are gone, or never came.
async fn disconnected(mut readers: watch::Receiver<Readers>, first_reader: Duration) {
    let came = readers.wait_for(|readers| readers.ever > 0);
    if !matches!(tokio::time::timeout(first_reader, came).await, Ok(Ok(_))) {
        return;
    }
    // An error means that the log is gone, and with it every reader.
    let _ = readers.wait_for(|readers| readers.attached == 0).await;
}

/// Ends a task with [`crate::Detach::AtOnce`] when its connection is gone, queued or running.
pub(crate) async fn watch_connection(shared: Arc<Shared>, core: Arc<TaskCore>) {
    let gone = disconnected(core.log.readers(), shared.limits.first_reader);
    tokio::select! {
        () = core.ended.cancelled() => {}
        () = gone => shared.end(&core, Ending::Cancelled(CancelReason::Disconnected)),
    }
}
