//! Steps of those who watch, and of engines that somebody else runs for a time.

use anyhow::{Context, Result, ensure};
use cucumber::{then, when};
use serde_json::json;
use test_harness_bdd::until;

use crate::world::{Answer, Lab};

#[when(expr = "a client watches GET {word}")]
async fn watch(lab: &mut Lab, path: String) -> Result<()> {
    let api = lab.api()?;
    let answer = api.http().get(api.url(&path)).send().await.context("asking")?;
    ensure!(answer.status() == 200, "it is {}", answer.status());
    (lab.open, lab.told) = (Some(answer), String::new());
    Ok(())
}

#[then(expr = "the watcher is told of {string}")]
async fn told_of(lab: &mut Lab, event: String) -> Result<()> {
    read_to(lab, |frame| frame.lines().any(|line| line == format!("event: {event}"))).await
}

#[then(expr = "the watcher is told that task {string} is {word}")]
async fn told_of_task(lab: &mut Lab, task: String, state: String) -> Result<()> {
    let id = lab.task(&task)?.to_owned();
    let tells = |frame: &str| {
        let data = frame.lines().find_map(|line| line.strip_prefix("data: ")).unwrap_or_default();
        let data: serde_json::Value = serde_json::from_str(data).unwrap_or_default();
        data["task_id"] == id && data["state"] == state
    };
    read_to(lab, tells).await
}

#[then(expr = "the watcher was never told {string}")]
fn never_told(lab: &mut Lab, words: String) -> Result<()> {
    ensure!(!lab.told.contains(&words), "it was told {}", lab.told);
    Ok(())
}

/// Reads events up to the first that holds; a hang fails the step with what was told.
async fn read_to(lab: &mut Lab, holds: impl Fn(&str) -> bool) -> Result<()> {
    let mut from = lab.told.len();
    let open = lab.open.as_mut().context("nobody watches")?;
    let (told, patience) = (&mut lab.told, std::time::Duration::from_secs(60));
    let read = async {
        loop {
            while let Some(end) = told[from..].find("\n\n") {
                if holds(&told[from..from + end]) {
                    return Ok(());
                }
                from += end + 2;
            }
            let bytes = open.chunk().await.context("reading events")?.context("the events ended")?;
            told.push_str(&String::from_utf8_lossy(&bytes));
        }
    };
    let read: Result<Result<()>, _> = tokio::time::timeout(patience, read).await;
    read.with_context(|| format!("not within {} s", patience.as_secs()))?
}

#[when(expr = "a client registers engine {string} as replica {string} of pool {string} for {int} ms")]
async fn register(lab: &mut Lab, engine: String, replica: String, pool: String, ttl_ms: u64) -> Result<()> {
    let url = &lab.engines.get(&engine).with_context(|| format!("no engine {engine} runs"))?.1;
    let body = json!({"url": url, "pool_id": pool, "replica_id": replica, "model": "m", "ttl_ms": ttl_ms});
    let (api, path) = (lab.api()?, "/v2/workers/register");
    let answer = api.http().post(api.url(path)).json(&body).send().await.context("registering")?;
    lab.answer = Some(Answer::of("POST", path, answer).await?);
    Ok(())
}

#[when(expr = "heartbeats of {string} are sent until pool {string} is ready")]
async fn beat(lab: &mut Lab, worker: String, pool: String) -> Result<()> {
    let api = lab.api()?.clone();
    until(&format!("{pool} is ready"), || async {
        let beat = api.http().post(api.url(&format!("/v2/workers/{worker}/heartbeat"))).send().await?;
        ensure!(beat.status().is_success(), "a heartbeat was answered {}", beat.status());
        Ok(api.get(&format!("/v2/pools/{pool}/health")).await?["ready"] == true)
    })
    .await?;
    Ok(())
}
