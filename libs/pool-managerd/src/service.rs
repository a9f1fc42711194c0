//! What a service manager is told (`Type=notify`): that the daemon is up, that it is stopping, and,
//! while it supervises, that it is alive. The watchdog is fed by a full round of supervision and by
//! nothing else: a process that merely runs is not a supervisor that works.

use std::convert::Infallible;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::Running;

/// For one round; with a machine that is busy in mind.
const ROUND_WITHIN: Duration = Duration::from_secs(10);

/// Nobody may listen, and then nothing happens: without `NOTIFY_SOCKET` this is an ordinary process.
pub(crate) fn ready(running: &Running) {
    tell(&[NotifyState::Ready, NotifyState::Status(&format!("listening on {}", running.addr()))]);
}

pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Feeds the watchdog for as long as rounds succeed, at half the period that the service manager
/// asks for. Pending for ever when it asks for none.
pub(crate) async fn feed_watchdog(running: &Running) -> Infallible {
    let Some(period) = sd_notify::watchdog_enabled() else { return std::future::pending().await };
    feed(period, || running.round(), || tell(&[NotifyState::Watchdog])).await
}

async fn feed<Round>(period: Duration, round: impl Fn() -> Round, mut fed: impl FnMut()) -> Infallible
where
    Round: Future<Output = Result<(), String>>,
{
    let mut ticks = interval((period / 2).max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match timeout(ROUND_WITHIN, round()).await {
            Ok(Ok(())) => fed(),
            Ok(Err(why)) => tracing::error!(why, "the watchdog is not fed"),
            Err(_late) => tracing::error!(why = "the round took too long", "the watchdog is not fed"),
        }
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use wire::config::PoolConfig;
    use wire::{Phase, ReplicaId};

    use super::*;
    use crate::board::Board;

    const PERIOD: Duration = Duration::from_mins(1);
    const UNWATCHED_LIMIT: Duration = Duration::from_secs(20);

    /// POOLD-SERVICE-001
    #[tokio::test(start_paused = true)]
    async fn the_watchdog_starves_when_a_replica_that_serves_is_watched_no_more() {
        let (pool, board) = (Arc::new(PoolConfig::haiku()), Arc::new(Board::new()));
        board.add(&pool);
        let seat = board.seat(&pool.id, &ReplicaId::nth(0)).unwrap();
        seat.update(|replica| replica.phase(Phase::Ready));
        let watcher = tokio::spawn(async move {
            loop {
                seat.watched();
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        let meals = Arc::new(AtomicU32::new(0));
        let fed = Arc::clone(&meals);
        let feeding = tokio::spawn(async move {
            let round = || async { board.unwatched(UNWATCHED_LIMIT).map_or(Ok(()), |r| Err(r.to_string())) };
            feed(PERIOD, round, || _ = fed.fetch_add(1, Ordering::SeqCst)).await
        });
        tokio::time::sleep(PERIOD * 10).await;
        assert!(meals.load(Ordering::SeqCst) >= 20, "{meals:?} in ten periods, each of two rounds");
        watcher.abort();
        tokio::time::sleep(UNWATCHED_LIMIT + PERIOD).await;
        let last = meals.load(Ordering::SeqCst);
        tokio::time::sleep(PERIOD * 10).await;
        assert_eq!(meals.load(Ordering::SeqCst), last, "it merely runs, and is fed");
        feeding.abort();
    }

    /// POOLD-SERVICE-001
    #[tokio::test(start_paused = true)]
    async fn a_round_that_never_ends_feeds_nobody() {
        let mut meals = 0;
        let never = || std::future::pending::<Result<(), String>>();
        let _given_up = timeout(PERIOD * 10, feed(PERIOD, never, || meals += 1)).await;
        assert_eq!(meals, 0);
    }
}
