//! R19: a stop while a stream runs that never ends and the queue is full.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::house::House;
use crate::run::{Run, reached};

/// How long running tasks may finish after a stop was asked for.
const DRAIN: Duration = Duration::from_secs(10);

pub(super) async fn run(run: Arc<Run>) -> Result<()> {
    let (one, two) = tokio::join!(stop(&run, false), stop(&run, true));
    one.and(two)
}

async fn stop(run: &Run, impatient: bool) -> Result<()> {
    let keys = "ctx: 1000000, queue: { capacity: 8 }";
    let mut house = House::ready(run, keys, "STUB_TOKEN_MS: '20'").await?;
    let endless = house.submit(json!({"max_tokens": 500_000})).await?;
    let mut reader = house.follow(&endless, None).await?;
    reader.until(|event| event.name == "token").await?;
    reached("the queue is full", || async { Ok(house.try_submit(json!({})).await?.0 == 429) }).await?;
    house.orchestratord.signal(Signal::SIGTERM)?;
    let what = if impatient { "a second SIGTERM" } else { "SIGTERM" };
    if impatient {
        // Later than what counts as one and the same.
        tokio::time::sleep(Duration::from_millis(500 + run.chance(1_000))).await;
        house.orchestratord.signal(Signal::SIGTERM)?;
    }
    let limit = if impatient { Duration::from_secs(1) } else { DRAIN + Duration::from_secs(2) };
    let read = tokio::spawn(async move {
        let mut read = Vec::new();
        while let Ok(Some(event)) = reader.next().await {
            read.push(event);
        }
        read
    });
    let (status, took) = house.orchestratord.ended().await?;
    run.time(format!("{what}: ended"), took, limit);
    let code = status.code().context("it was killed")?;
    run.count(format!("{what}: exit code"), code as usize, 0..=0);
    let mut read = read.await.context("the reader")?;
    let said = read.pop().map_or("nothing".to_owned(), |event| {
        format!("{} {}", event.name, event.data["code"].as_str().unwrap_or_default())
    });
    run.fact(format!("{what}: the stream's last event"), said == "error INTERRUPTED", said);
    run.count(format!("{what}: engines left"), house.rig.engines().len(), 0..=0);

    // What a crash does not lose, a stop does not either.
    let last = read.pop().context("nothing was read")?;
    let rig = Arc::clone(&house.rig);
    drop(house);
    let house = House::start_on(rig).await?;
    let mut reader = house.follow(&endless, last.id.as_deref()).await?;
    let next = reader.until(|event| event.name == "token").await?;
    let (before, after) = (last.data["i"].as_u64(), next.data["i"].as_u64());
    let goes_on = last.name == "token" && after == before.map(|before| before + 1);
    run.fact(format!("{what}: the next start goes on behind it"), goes_on, format!("{before:?}, {after:?}"));
    Ok(())
}
