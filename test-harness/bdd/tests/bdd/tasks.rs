//! Tasks: submitted, waiting, cancelled, ended; and what the metrics say of them.

use anyhow::{Context, Result, ensure};
use cucumber::gherkin::Step;
use cucumber::{given, then, when};
use serde_json::{Value, json};
use test_harness_bdd::until;

use crate::world::{Answer, Lab};

#[given(expr = "task {string} is submitted")]
#[when(expr = "a client submits task {string}")]
async fn submit(lab: &mut Lab, name: String, step: &Step) -> Result<()> {
    let more = step.docstring.as_deref().unwrap_or("{}");
    let mut body = json!({"model": "p", "prompt": "once upon a time", "max_tokens": 8});
    let more: Value = serde_json::from_str(more).with_context(|| format!("not JSON: {more}"))?;
    if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
        body.extend(more);
    }
    let api = lab.api()?;
    let response = api.http().post(api.url("/v2/tasks")).json(&body).send().await.context("submitting")?;
    let answer = Answer::of("POST", "/v2/tasks", response).await?;
    if answer.status == 202 {
        let id = answer.json()?["task_id"].as_str().context("no task_id")?.to_owned();
        lab.tasks.insert(name, id);
    }
    lab.answer = Some(answer);
    Ok(())
}

#[when(expr = "a client submits a prompt of {int} words to {string}")]
async fn long_prompt(lab: &mut Lab, words: usize, model: String) -> Result<()> {
    let api = lab.api()?;
    let body = json!({"model": model, "prompt": "word ".repeat(words), "max_tokens": 4});
    let response = api.http().post(api.url("/v2/tasks")).json(&body).send().await.context("submitting")?;
    lab.answer = Some(Answer::of("POST", "/v2/tasks", response).await?);
    Ok(())
}

#[given(expr = "{int} tasks are submitted")]
async fn several(lab: &mut Lab, count: u32, step: &Step) -> Result<()> {
    for number in 0..count {
        submit(lab, format!("{number}"), step).await?;
        let answer = lab.answer()?;
        ensure!(answer.status == 202, "number {number} was answered {}: {}", answer.status, answer.text);
    }
    Ok(())
}

#[given(expr = "task {string} is in state {word}")]
#[then(expr = "task {string} becomes {word}")]
async fn becomes(lab: &mut Lab, name: String, state: String) -> Result<()> {
    let (api, path) = (lab.api()?.clone(), format!("/v2/tasks/{}", lab.task(&name)?));
    until(&format!("task {name} is {state}"), || async {
        let view = api.get(&path).await?;
        anyhow::ensure!(view["state"] == state, "it is {}", view["state"]);
        Ok(true)
    })
    .await?;
    Ok(())
}

#[then(expr = "task {string} waited less than task {string}")]
async fn before(lab: &mut Lab, first: String, second: String) -> Result<()> {
    for name in [&first, &second] {
        becomes(lab, name.clone(), "done".to_owned()).await?;
    }
    let (first, second) = (view(lab, &first).await?, view(lab, &second).await?);
    let (one, other) = (first["queue_ms"].as_u64(), second["queue_ms"].as_u64());
    ensure!(one.is_some() && one < other, "{first:#}\n{second:#}");
    Ok(())
}

async fn view(lab: &Lab, name: &str) -> Result<Value> {
    lab.api()?.get(&format!("/v2/tasks/{}", lab.task(name)?)).await
}

#[then(expr = "the decision about task {string} mentions {string}")]
async fn decision(lab: &mut Lab, name: String, words: String) -> Result<()> {
    let view = view(lab, &name).await?;
    ensure!(view.to_string().contains(&words), "{view:#}");
    Ok(())
}

#[then(expr = "task {string} ran on {string}")]
async fn ran_on(lab: &mut Lab, name: String, place: String) -> Result<()> {
    let view = view(lab, &name).await?;
    let (pool, replica) = (view["pool_id"].as_str(), view["replica_id"].as_str());
    let ran = format!("{}/{}", pool.unwrap_or("-"), replica.unwrap_or("-"));
    ensure!(ran == place, "{view:#}");
    Ok(())
}

#[given(expr = "the counter {word} is noted")]
async fn note(lab: &mut Lab, counter: String) -> Result<()> {
    let value = lab.api()?.counter(&counter).await?;
    lab.noted.insert(counter, value);
    Ok(())
}

#[then(expr = "the counter {word} rose by {int}")]
async fn rose(lab: &mut Lab, counter: String, by: f64) -> Result<()> {
    let before = *lab.noted.get(&counter).context("it was not noted")?;
    let api = lab.api()?.clone();
    until(&format!("{counter} rose by {by}"), || async {
        let now = api.counter(&counter).await?;
        anyhow::ensure!((now - before - by).abs() < f64::EPSILON, "it rose by {}", now - before);
        Ok(true)
    })
    .await?;
    Ok(())
}

#[then(expr = "the counter {word} rose by the tokens of task {string}")]
async fn rose_by_tokens(lab: &mut Lab, counter: String, name: String) -> Result<()> {
    let tokens = lab.stream(&name)?.end()?["tokens_out"].as_f64().context("no tokens_out")?;
    rose(lab, counter, tokens).await
}
