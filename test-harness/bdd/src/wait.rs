//! Waiting for a condition; the limit only bounds a scenario that fails.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long a condition is waited for on a loaded machine.
const LIMIT: Duration = Duration::from_secs(60);

/// How often it is looked at.
const PERIOD: Duration = Duration::from_millis(20);

/// Waits until `holds` says so, and says how long that took; an error that it returns is shown when it
/// never does.
pub async fn until<F, Fut>(what: &str, holds: F) -> Result<Duration>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<bool>>,
{
    until_within(what, LIMIT, PERIOD, holds).await
}

/// The same with a limit and a period of one's own: what is measured is looked at more often.
pub async fn until_within<F, Fut>(
    what: &str,
    limit: Duration,
    period: Duration,
    mut holds: F,
) -> Result<Duration>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<bool>>,
{
    let began = Instant::now();
    loop {
        let last = match holds().await {
            Ok(true) => return Ok(began.elapsed()),
            Ok(false) => "it does not hold".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        if began.elapsed() > limit {
            bail!("{what}: not within {limit:?}; at last: {last}");
        }
        tokio::time::sleep(period).await;
    }
}
