//! What a pool is wanted to do. Desired state is data; the replicas' tasks follow it.

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The desired state of one pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Desired {
    run: bool,
    /// Counts requests to run, so that a failed replica notices a new one.
    request: u64,
}

/// Gives orders to all replicas of a pool.
#[derive(Debug)]
pub(crate) struct Commander(watch::Sender<Desired>);

/// Receives them in one replica.
#[derive(Debug, Clone)]
pub(crate) struct Orders {
    desired: watch::Receiver<Desired>,
    shutdown: CancellationToken,
}

impl Commander {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(Desired { run: true, request: 0 }))
    }

    pub(crate) fn run(&self) {
        self.0.send_modify(|d| *d = Desired { run: true, request: d.request + 1 });
    }

    pub(crate) fn stop(&self) {
        self.0.send_modify(|d| d.run = false);
    }

    pub(crate) fn subscribe(&self, shutdown: CancellationToken) -> Orders {
        Orders { desired: self.0.subscribe(), shutdown }
    }
}

impl Orders {
    /// Waits until the pool shall run; `false` at shutdown.
    pub(crate) async fn wanted(&mut self) -> bool {
        self.wait_for(|d| d.run).await
    }

    /// Waits until the pool shall not run, or the manager shuts down.
    pub(crate) async fn unwanted(&mut self) {
        self.wait_for(|d| !d.run).await;
    }

    /// Waits until somebody asks anew for the pool to run, or to stop, or the manager shuts down.
    pub(crate) async fn asked_anew(&mut self) {
        let before = *self.desired.borrow_and_update();
        self.wait_for(|d| d.request != before.request || !d.run).await;
    }

    /// Whether the pool shall run now.
    pub(crate) fn are_to_run(&self) -> bool {
        self.desired.borrow().run && !self.shutting_down()
    }

    pub(crate) fn shutting_down(&self) -> bool {
        self.shutdown.is_cancelled()
    }

    /// `false` at shutdown; a closed channel is one too.
    async fn wait_for(&mut self, wanted: impl FnMut(&Desired) -> bool) -> bool {
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => false,
            reached = self.desired.wait_for(wanted) => reached.is_ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failed_replica_tries_again_only_when_asked_anew() {
        let commander = Commander::new();
        let mut orders = commander.subscribe(CancellationToken::new());
        assert!(orders.wanted().await);
        let mut waiting = Box::pin(orders.asked_anew());
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        commander.run();
        waiting.await;
    }

    #[tokio::test]
    async fn a_stopped_pool_waits_and_a_shutdown_ends_the_wait() {
        let commander = Commander::new();
        let shutdown = CancellationToken::new();
        let mut orders = commander.subscribe(shutdown.clone());
        commander.stop();
        orders.unwanted().await;
        let mut waiting = Box::pin(orders.wanted());
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        shutdown.cancel();
        assert!(!waiting.await);
    }
}
