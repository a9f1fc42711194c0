//! The loops behind dispatch: one per pool that starts what can start, and one that tidies up.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::dispatcher::Shared;
use crate::ending::{Ending, Failure};
use crate::pool::Pool;
use crate::run::run;

/// How often ended tasks are looked over for age.
const SWEEP_EVERY: Duration = Duration::from_secs(30);
/// How long a pool's loop sleeps when only a wake-up can bring it work.
const IDLE: Duration = Duration::from_secs(3_600);

/// Brings waiting tasks and free slots together, until shutdown; then nothing waits any more.
pub(crate) async fn pool_loop(shared: Arc<Shared>, pool: Arc<Pool>) {
    let mut changed = shared.registry.changed();
    while !shared.shutdown.is_cancelled() {
        changed.borrow_and_update();
        let look_again = match_up(&shared, &pool);
        tokio::select! {
            () = shared.shutdown.cancelled() => break,
            () = pool.over.cancelled() => break,
            () = pool.wake.notified() => {}
            // The registry cannot go away while `shared` holds it.
            _ = changed.changed() => {}
            () = tokio::time::sleep_until(look_again) => {}
        }
    }
    pool.show_slots(&registry::Snapshot::default());
    // What is in the journal waits for the next process.
    for core in pool.close().into_iter().filter(|core| !core.may_stay()) {
        shared.end(&core, Ending::Failed(Failure::interrupted()));
    }
}

/// Starts everything that can start now; says when to look again at the latest.
fn match_up(shared: &Arc<Shared>, pool: &Arc<Pool>) -> Instant {
    let now = Instant::now();
    for core in pool.take_expired(now) {
        let failure = core.waited_too_long(now);
        shared.end(&core, Ending::Failed(failure));
    }
    while let Some(placed) = pool.take_placed(&shared.registry, &shared.sessions, now) {
        let generation = shared.running.track_future(run(Arc::clone(shared), placed));
        shared.tracker.spawn(generation);
    }
    pool.show_slots(&shared.registry.snapshot());
    pool.next_look(now).unwrap_or(now + IDLE)
}

/// Lets go of ended tasks as they age; at shutdown gives running tasks their last chance.
pub(crate) async fn keeper(shared: Arc<Shared>) {
    while !shared.shutdown.is_cancelled() {
        tokio::select! {
            () = shared.shutdown.cancelled() => {}
            () = tokio::time::sleep(SWEEP_EVERY) => {
                let swept = shared.lock_store().sweep(&shared.limits);
                shared.let_go(swept);
                shared.let_go_of_pools();
            }
        }
    }
    shared.running.close();
    // The answer does not matter: a run that a pool's loop was just starting when nothing else ran
    // must end as well.
    let _ = tokio::time::timeout(shared.limits.drain, shared.running.wait()).await;
    shared.drained.cancel();
}
