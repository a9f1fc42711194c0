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
    let mut ticks = interval((period / 2).max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match timeout(ROUND_WITHIN, running.round()).await {
            Ok(Ok(())) => tell(&[NotifyState::Watchdog]),
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
