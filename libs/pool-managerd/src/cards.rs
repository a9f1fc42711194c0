//! The machine's cards, looked at off the async threads: one look at a time, and for whoever only
//! wants to show them a recent look is good enough.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use devices::{Discover, Inventory};
use tokio::sync::Mutex;
use tokio::time::Instant;

/// A look costs the driver a few milliseconds and `nvidia-smi` a second; nobody watches faster.
const RECENT: Duration = Duration::from_secs(1);

/// Looks at the cards.
pub(crate) struct Cards {
    discover: Arc<dyn Discover>,
    last: Mutex<Option<(Instant, Arc<Inventory>)>>,
}

impl Cards {
    pub(crate) fn new(discover: Arc<dyn Discover>) -> Self {
        Self { discover, last: Mutex::new(None) }
    }

    /// As they were at most a second ago.
    pub(crate) async fn recent(&self) -> Arc<Inventory> {
        let mut last = self.last.lock().await;
        if let Some((_, inventory)) = last.as_ref().filter(|(at, _)| at.elapsed() < RECENT) {
            return Arc::clone(inventory);
        }
        self.look(&mut last).await
    }

    /// As they are now.
    pub(crate) async fn fresh(&self) -> Arc<Inventory> {
        let mut last = self.last.lock().await;
        self.look(&mut last).await
    }

    async fn look(&self, last: &mut Option<(Instant, Arc<Inventory>)>) -> Arc<Inventory> {
        let given_up = StopOnDrop(Arc::default());
        let (discover, stop) = (Arc::clone(&self.discover), Arc::clone(&given_up.0));
        let look = tokio::task::spawn_blocking(move || discover.look(&|| stop.load(Ordering::Relaxed)));
        let inventory = Arc::new(look.await.unwrap_or_else(|broken| {
            Inventory::DriverOnly(format!("looking for cards broke off: {broken}"))
        }));
        *last = Some((Instant::now(), Arc::clone(&inventory)));
        inventory
    }
}

/// A look that nobody waits for any more ends.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    #[tokio::test(start_paused = true)]
    async fn a_recent_look_serves_many_and_an_old_one_nobody() {
        let looks = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&looks);
        let cards = Cards::new(Arc::new(move || {
            counted.fetch_add(1, Ordering::SeqCst);
            Inventory::NoCard
        }));
        cards.recent().await;
        cards.recent().await;
        assert_eq!(looks.load(Ordering::SeqCst), 1);
        tokio::time::advance(RECENT * 2).await;
        cards.recent().await;
        assert_eq!(looks.load(Ordering::SeqCst), 2);
    }
}
