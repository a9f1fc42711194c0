//! R14: ten times what the queue holds, within a second.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::json;

use crate::house::{House, percentile};
use crate::run::{Run, reached};

const CAPACITY: usize = 32;

pub(super) async fn run(run: Arc<Run>) -> Result<()> {
    let keys = format!("slots: 2, queue: {{ capacity: {CAPACITY} }}");
    let house = Arc::new(House::ready(&run, &keys, "STUB_TOKEN_MS: '20'").await?);
    // What is told of the wait follows from what was measured.
    for _ in 0..6 {
        let task = house.submit(json!({"max_tokens": 20})).await?;
        finished(&house, &task).await?;
    }
    for _ in 0..run.pick(1, 5) {
        burst(&run, &house).await?;
    }
    Ok(())
}

async fn burst(run: &Run, house: &Arc<House>) -> Result<()> {
    let asked = 10 * CAPACITY;
    let began = Instant::now();
    let mut clients = tokio::task::JoinSet::new();
    for n in 0..asked {
        let house = Arc::clone(house);
        let due = began + Duration::from_millis((n * 1000 / asked) as u64);
        clients.spawn(async move {
            // Evenly over the second.
            tokio::time::sleep_until(due.into()).await;
            let sent = Instant::now();
            let answer = house.ask(json!({"max_tokens": 20, "detach_grace_ms": 120_000})).await;
            (sent.elapsed(), answer)
        });
    }
    let (mut refused, mut accepted, mut without) = (Vec::new(), Vec::new(), 0);
    for (took, answer) in clients.join_all().await {
        match answer?.checked()? {
            (202, body) => {
                let id = body["task_id"].as_str().context("no task_id")?.to_owned();
                accepted.push((id, body["predicted_start_ms"].as_u64()));
            }
            (429, body) => {
                refused.push(took);
                without += usize::from(body["error"]["retry_after_ms"].as_u64().is_none());
            }
            (status, body) => anyhow::bail!("answered {status}: {body}"),
        }
    }
    run.time(
        format!("429, p99 of {}", refused.len()),
        percentile(&mut refused, 99),
        Duration::from_millis(50),
    );
    run.count("429 without a time to come back", without, 0..=0);
    let (mut done, mut worst) = (0, 1.0_f64);
    for (task, told) in &accepted {
        let view = finished(house, task).await?;
        done += usize::from(view == "done");
        let real = house.api.get(&format!("/v2/tasks/{task}")).await?["queue_ms"].as_u64();
        // Below half a second the looks of the scheduler decide, not the estimate.
        if let (Some(told), Some(real @ 500..)) = (*told, real) {
            let ratio = (told.max(1) as f64) / real as f64;
            worst = worst.max(ratio.max(1.0 / ratio));
        }
    }
    let all = accepted.len();
    run.count("accepted", all, CAPACITY..=asked);
    run.count("accepted that did not finish", all - done, 0..=0);
    run.amount("told wait within a factor of", worst, 2.0, "");
    Ok(())
}

async fn finished(house: &House, task: &str) -> Result<String> {
    let path = format!("/v2/tasks/{task}");
    let state = async || {
        let view = house.api.get(&path).await?;
        anyhow::Ok(view["state"].as_str().unwrap_or_default().to_owned())
    };
    reached("the task has ended", async || Ok(!matches!(state().await?.as_str(), "queued" | "running")))
        .await?;
    state().await
}
