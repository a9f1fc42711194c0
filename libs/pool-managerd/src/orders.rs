//! What a replica is wanted to do. Desired state is data; the replica's task follows it and decides
//! itself how.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::target::Target;

/// What a replica is wanted to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    Run,
    /// Take nothing new, finish what runs, then stop; what runs at this time is cut off.
    Drain(Instant),
    Stop,
}

/// Why a replica that runs is to run no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    Drain(Instant),
    Stop,
    /// The manager shuts down.
    Leave,
}

#[derive(Debug, Clone)]
struct Desired {
    want: Want,
    target: Arc<Target>,
    /// Counts requests to run, so that a failed replica notices a new one.
    request: u64,
    /// Counts requests to forget earlier losses.
    resets: u64,
}

/// Gives orders to one replica.
#[derive(Debug, Clone)]
pub(crate) struct Commander {
    desired: watch::Sender<Desired>,
    leave: CancellationToken,
}

/// Receives them in the replica.
#[derive(Debug, Clone)]
pub(crate) struct Orders {
    desired: watch::Receiver<Desired>,
    resets_seen: u64,
    target_seen: u64,
    shutdown: CancellationToken,
}

impl Commander {
    /// `leave` ends the replica's task.
    pub(crate) fn new(target: Arc<Target>, leave: CancellationToken) -> Self {
        let desired = Desired { want: Want::Run, target, request: 0, resets: 0 };
        Self { desired: watch::Sender::new(desired), leave }
    }

    /// Ends the task of a replica that has stopped.
    pub(crate) fn dismiss(&self) {
        self.leave.cancel();
    }

    /// Returns the number of this request: what the replica shows with a lower one came before.
    pub(crate) fn run(&self) -> u64 {
        self.desired.send_modify(|d| {
            d.want = Want::Run;
            d.request += 1;
        });
        self.desired.borrow().request
    }

    pub(crate) fn stop(&self) {
        self.desired.send_modify(|d| d.want = Want::Stop);
    }

    pub(crate) fn drain(&self, until: Instant) {
        self.desired.send_modify(|d| d.want = Want::Drain(until));
    }

    /// Forgets earlier losses, and asks anew.
    pub(crate) fn reset(&self) {
        self.desired.send_modify(|d| {
            d.resets += 1;
            d.request += 1;
        });
    }

    /// Gives it something else to run, when it runs.
    pub(crate) fn target(&self, target: Arc<Target>) {
        self.desired.send_modify(|d| d.target = target);
    }

    pub(crate) fn is_to_run(&self) -> bool {
        self.desired.borrow().want == Want::Run
    }

    pub(crate) fn subscribe(&self) -> Orders {
        let target_seen = self.desired.borrow().target.number;
        let (desired, shutdown) = (self.desired.subscribe(), self.leave.clone());
        Orders { desired, resets_seen: 0, target_seen, shutdown }
    }
}

impl Orders {
    /// Waits until the replica shall run; `false` at shutdown.
    pub(crate) async fn wanted(&mut self) -> bool {
        self.wait_for(|d| d.want == Want::Run).await
    }

    /// Waits until the replica shall not run, or the manager shuts down.
    pub(crate) async fn unwanted(&mut self) {
        self.wait_for(|d| d.want != Want::Run).await;
    }

    /// As [`unwanted`](Self::unwanted), and says how it is to end.
    pub(crate) async fn turned(&mut self) -> Turn {
        self.unwanted().await;
        match self.desired.borrow().want {
            _ if self.shutting_down() => Turn::Leave,
            Want::Drain(until) => Turn::Drain(until),
            // A closed channel leaves the last order in place; nobody gives orders any more.
            Want::Stop | Want::Run => Turn::Stop,
        }
    }

    /// Waits until the replica shall do anything but drain, or the manager shuts down.
    pub(crate) async fn not_to_drain(&mut self) {
        self.wait_for(|d| !matches!(d.want, Want::Drain(_))).await;
    }

    /// Waits until somebody asks anew for the replica to run, or to run something else, or to stop, or
    /// the manager shuts down.
    pub(crate) async fn asked_anew(&mut self) {
        let (request, seen) = (self.desired.borrow_and_update().request, self.target_seen);
        let anew = |d: &Desired| d.request != request || d.target.number != seen || d.want != Want::Run;
        self.wait_for(anew).await;
    }

    /// Waits until earlier losses are to be forgotten, or the replica shall run something else or not at
    /// all. Whoever hears of
    /// it asks with [`take_reset`](Self::take_reset).
    pub(crate) async fn reset(&mut self) {
        let (resets, target) = (self.resets_seen, self.target_seen);
        let anew = |d: &Desired| d.resets != resets || d.target.number != target || d.want != Want::Run;
        self.wait_for(anew).await;
    }

    /// Waits until it is to run another target than the last one it took.
    pub(crate) async fn another_target(&mut self) {
        let seen = self.target_seen;
        if !self.wait_for(|d| d.target.number != seen).await {
            // Shutting down is somebody else's business.
            std::future::pending::<()>().await;
        }
    }

    /// What it is to run.
    pub(crate) fn take_target(&mut self) -> Arc<Target> {
        let target = Arc::clone(&self.desired.borrow().target);
        self.target_seen = target.number;
        target
    }

    /// Whether earlier losses are to be forgotten; says so once.
    pub(crate) fn take_reset(&mut self) -> bool {
        let resets = self.desired.borrow().resets;
        std::mem::replace(&mut self.resets_seen, resets) != resets
    }

    /// The number of the last request to run.
    pub(crate) fn request(&self) -> u64 {
        self.desired.borrow().request
    }

    /// Whether the replica shall run now.
    pub(crate) fn are_to_run(&self) -> bool {
        self.desired.borrow().want == Want::Run && !self.shutting_down()
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

    fn target() -> Arc<Target> {
        Arc::new(Target::first(Arc::new(wire::config::PoolConfig::haiku())))
    }

    #[tokio::test]
    async fn a_failed_replica_tries_again_only_when_asked_anew() {
        let commander = Commander::new(target(), CancellationToken::new());
        let mut orders = commander.subscribe();
        assert!(orders.wanted().await);
        let mut waiting = Box::pin(orders.asked_anew());
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        commander.run();
        waiting.await;
    }

    #[tokio::test]
    async fn a_stopped_replica_waits_and_a_shutdown_ends_the_wait() {
        let shutdown = CancellationToken::new();
        let commander = Commander::new(target(), shutdown.clone());
        let mut orders = commander.subscribe();
        commander.stop();
        assert_eq!(orders.turned().await, Turn::Stop);
        let mut waiting = Box::pin(orders.wanted());
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        shutdown.cancel();
        assert!(!waiting.await);
        assert_eq!(orders.turned().await, Turn::Leave);
    }

    #[tokio::test]
    async fn a_reset_is_heard_once_even_when_it_came_before_anybody_listened() {
        let commander = Commander::new(target(), CancellationToken::new());
        let mut orders = commander.subscribe();
        commander.reset();
        orders.reset().await;
        assert!(orders.take_reset());
        assert!(!orders.take_reset());
        let mut waiting = Box::pin(orders.reset());
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
    }
}
