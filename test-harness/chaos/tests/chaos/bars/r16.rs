//! R16: one task submitted a thousand times at once.

use std::sync::Arc;

use anyhow::{Context, Result};
use serde_json::json;

use crate::house::{Engine, House};
use crate::run::{Run, reached};

/// Connections at once that a client of one machine may well open.
const AT_ONCE: usize = 1_000;

const TOKENS: u64 = 8;

pub(super) async fn run(run: Arc<Run>) -> Result<()> {
    let house = Arc::new(House::ready(&run, "slots: 4", "STUB_TOKEN_MS: '20'").await?);
    let engine = Engine::of(&house.rig)?;
    for round in 0..run.pick(1, 5) {
        let before = engine.tokens().await?;
        let started = house.api.counter("orchd_tasks_started_total").await?;
        let id = format!("the-same-{round}");
        let mut asked = tokio::task::JoinSet::new();
        for _ in 0..AT_ONCE {
            let (house, id) = (Arc::clone(&house), id.clone());
            asked.spawn(async move { house.try_submit(json!({"task_id": id, "max_tokens": TOKENS})).await });
        }
        let (mut accepted, mut others) = (0, Vec::new());
        while let Some(answer) = asked.join_next().await {
            let (status, answer) = answer.context("a client")??;
            match status {
                202 if answer["task_id"] == id => accepted += 1,
                _ => others.push(format!("{status}: {answer}")),
            }
        }
        run.count("accepted with the same id", accepted, AT_ONCE..=AT_ONCE);
        if let Some(other) = others.first() {
            run.fact("other answers", false, format!("{} as {other}", others.len()));
        }
        let path = format!("/v2/tasks/{id}");
        reached("it is done", || async { Ok(house.api.get(&path).await?["state"] == "done") }).await?;
        let executions = house.api.counter("orchd_tasks_started_total").await? - started;
        run.count("executions", executions as usize, 1..=1);
        let tokens = engine.tokens().await? - before;
        run.count("tokens the engine generated", tokens as usize, TOKENS as usize..=TOKENS as usize);
        let (status, answer) = house.try_submit(json!({"task_id": id, "max_tokens": TOKENS + 1})).await?;
        run.fact("another body", status == 409, format!("{status} {}", answer["error"]["code"]));
    }
    Ok(())
}
