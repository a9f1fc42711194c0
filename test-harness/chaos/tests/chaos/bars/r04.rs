//! R4: an engine that is slow, and alive.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;

use crate::house::House;
use crate::run::{Run, reached_within};

pub(super) async fn run(run: Arc<Run>) -> Result<()> {
    let length = Duration::from_secs(run.pick(75, 600));
    let house =
        House::start(&run, &crate::house::one_pool("", "STUB_TOKEN_MS: '8000', STUB_PREFILL_MS: '20000'"))
            .await?;
    // The completion that proves it is as slow as any other.
    reached_within("the pool is ready", Duration::from_secs(90), || async {
        Ok(house.health().await?["ready"] == true)
    })
    .await?;
    let engine = house.engine()?;
    let task = house.submit(json!({"max_tokens": 500, "on_interrupt": "fail"})).await?;
    let mut reader = house.follow(&task, None).await?;
    let (began, mut tokens) = (Instant::now(), 0);
    while began.elapsed() < length {
        let event = reader.until(|event| event.name != "started").await?;
        anyhow::ensure!(event.name == "token", "the stream ended with {event:?}");
        tokens += 1;
    }
    let replica = house.replica().await?;
    let lives = replica["generation"].as_u64().unwrap_or(0) as usize;
    run.count(format!("restarts in {:.0} s", length.as_secs_f64()), lives.saturating_sub(1), 0..=0);
    run.fact("same engine, published", house.engine()? == engine, "");
    run.told("tokens meanwhile", format!("{tokens}"));
    Ok(())
}
