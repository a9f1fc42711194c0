//! Connections that wait for the next request.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

/// Shorter than the 5 s after which llama-server closes an idle connection, so that a request is seldom
/// written into one that is closing.
const IDLE: Duration = Duration::from_secs(2);
/// Connections kept for the next request.
const MAX_IDLE: usize = 1024;

#[derive(Clone, Default)]
pub(super) struct Idle(Arc<Mutex<Vec<(Instant, TcpStream)>>>);

impl Idle {
    /// One that is still open.
    pub(super) fn take(&self) -> Option<TcpStream> {
        let mut idle = self.fresh();
        // Nothing is owed on it: what can be read is its end, or nothing of ours.
        let is_open = |stream: &TcpStream| {
            let read = stream.try_read(&mut [0]);
            read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
        };
        std::iter::from_fn(|| idle.pop()).map(|(_, stream)| stream).find(is_open)
    }

    pub(super) fn keep(&self, stream: TcpStream) {
        let mut idle = self.fresh();
        if idle.len() < MAX_IDLE {
            idle.push((Instant::now(), stream));
        }
    }

    /// All but those that have waited too long, the oldest first.
    fn fresh(&self) -> MutexGuard<'_, Vec<(Instant, TcpStream)>> {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let stale = idle.iter().take_while(|(since, _)| since.elapsed() > IDLE).count();
        idle.drain(..stale);
        idle
    }
}
