//! R3: an engine that says it is well and never says a token.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::house::House;
use crate::run::{Run, reached_within};

/// The first-token limit is a minute; three lives and their pauses fit in this.
const THREE_LIVES: Duration = Duration::from_secs(240);

/// What the limit of a minute may come to, with the looks at it.
const FIRST_TOKEN: Duration = Duration::from_secs(70);

pub(super) async fn run(run: Arc<Run>) -> Result<()> {
    // Each life answers the completion that proves it, and nothing after that.
    let house = House::ready(&run, "", "STUB_MUTE_AFTER: '1'").await?;
    let (began, mut most) = (Instant::now(), 0);
    let first_loss = {
        let watched = reached_within("the first loss", FIRST_TOKEN * 2, || async {
            Ok(house.replica().await?["failures"].as_u64() > Some(0))
        });
        tokio::select! {
            at = watched => at?,
            error = keep_asking(&house) => return error,
        }
    };
    run.time("first-token limit trips", first_loss - began, FIRST_TOKEN);
    let rig = &house.rig;
    let opened = reached_within("the breaker opens", THREE_LIVES, || {
        most = most.max(rig.engines().len());
        async { Ok(house.replica().await?["phase"] == "breaker_open") }
    });
    tokio::select! {
        at = opened => run.told("breaker open after", format!("{:.0} s", (at? - began).as_secs_f64())),
        error = keep_asking(&house) => return error,
    }
    let replica = house.replica().await?;
    let lives = replica["generation"].as_u64().unwrap_or(0);
    run.count("lives until the breaker opened", lives as usize, 3..=3);
    let mute = replica["losses"]["mute"].as_u64().unwrap_or(0);
    run.count("of them lost as mute", mute as usize, 3..=3);
    if run.full {
        // One trial after a minute: it is mute, too, and the breaker opens again.
        let refused = house.try_submit(json!({})).await?;
        run.fact(
            "a task meanwhile",
            refused.0 == 503,
            format!("{} {}", refused.0, refused.1["error"]["code"]),
        );
        reached_within("a trial", Duration::from_secs(100), || {
            most = most.max(rig.engines().len());
            async { Ok(house.replica().await?["generation"].as_u64() == Some(lives + 1)) }
        })
        .await?;
        house.is_ready().await?;
        house.submit(question()).await?;
        reached_within("the breaker opens again", FIRST_TOKEN * 2, || {
            most = most.max(rig.engines().len());
            async { Ok(house.replica().await?["phase"] == "breaker_open") }
        })
        .await?;
        let after = house.replica().await?["generation"].as_u64().unwrap_or(0);
        run.count("lives after one trial", after as usize, 4..=4);
    }
    run.count("engines at once", most, 0..=1);
    Ok(())
}

/// Somebody always asks: a mute engine shows only when it is asked. Returns only with an error.
async fn keep_asking(house: &House) -> Result<()> {
    loop {
        let tasks = house.api.get("/v2/tasks?limit=5").await?;
        let open = |task: &Value| task["state"] == "running" || task["state"] == "queued";
        if !tasks["tasks"].as_array().context("no tasks")?.iter().any(open) {
            // Refused while the breaker is open.
            let _answered = house.try_submit(question()).await?;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn question() -> Value {
    json!({"max_tokens": 5, "detach_grace_ms": 600_000})
}
