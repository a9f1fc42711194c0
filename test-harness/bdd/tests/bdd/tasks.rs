//! Tasks: submitted, waiting, cancelled, ended; and what the metrics say of them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cucumber::gherkin::Step;
use cucumber::{given, then, when};
use serde_json::{Value, json};
use test_harness_bdd::until;

use crate::world::{Answer, Lab};

/// How long a refused task is submitted again; it only bounds a scenario that fails.
const PATIENCE: Duration = Duration::from_secs(60);

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

#[when(expr = "a client submits task {string} until it is accepted")]
async fn submit_until(lab: &mut Lab, name: String, step: &Step) -> Result<()> {
    let began = Instant::now();
    loop {
        submit(lab, name.clone(), step).await?;
        let answer = lab.answer()?;
        match answer.status {
            202 => return Ok(()),
            503 if began.elapsed() < PATIENCE => tokio::time::sleep(Duration::from_millis(50)).await,
            status => anyhow::bail!("it is answered {status}: {}", answer.text),
        }
    }
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

#[given("those tasks are done")]
async fn those_done(lab: &mut Lab) -> Result<()> {
    let names: Vec<String> = lab.tasks.keys().filter(|name| name.parse::<u32>().is_ok()).cloned().collect();
    ensure!(!names.is_empty(), "no tasks were submitted by number");
    for name in names {
        becomes(lab, name, "done".to_owned()).await?;
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

#[then(expr = "task {string} began before task {string}")]
async fn before(lab: &mut Lab, first: String, second: String) -> Result<()> {
    for name in [&first, &second] {
        becomes(lab, name.clone(), "done".to_owned()).await?;
    }
    let (first, second) = (view(lab, &first).await?, view(lab, &second).await?);
    ensure!(began(&first)? < began(&second)?, "{first:#}\n{second:#}");
    Ok(())
}

/// When a task began, in milliseconds since 1970: how long it waited says nothing about an order, because
/// tasks are not submitted at once. Ids that orchestratord gives carry the moment of their admission.
fn began(view: &Value) -> Result<u64> {
    let id = view["task_id"].as_str().context("no task_id")?.replace('-', "");
    let admitted = id.get(..12).context("an id that is too short")?;
    let admitted = u64::from_str_radix(admitted, 16).with_context(|| format!("{id} is no UUIDv7"))?;
    Ok(admitted + view["queue_ms"].as_u64().context("it never began")?)
}

async fn view(lab: &Lab, name: &str) -> Result<Value> {
    lab.api()?.get(&format!("/v2/tasks/{}", lab.task(name)?)).await
}

#[then(expr = "the decision about task {string} mentions {string}")]
async fn decision(lab: &mut Lab, name: String, words: String) -> Result<()> {
    let view = view(lab, &name).await?;
    let decision = view["placement"].as_str().with_context(|| format!("no decision in {view:#}"))?;
    ensure!(decision.contains(&words), "{decision}");
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

#[then(expr = "a task on {string} tells engine version {string}")]
async fn tells_version(lab: &mut Lab, pool: String, version: String) -> Result<()> {
    let api = lab.api()?;
    let body = json!({"model": pool, "prompt": "once upon a time", "max_tokens": 3});
    let answer = api.http().post(api.url("/v2/tasks")).json(&body).send().await.context("submitting")?;
    let answer = Answer::of("POST", "/v2/tasks", answer).await?.json()?;
    let path = answer["streams"]["sse"].as_str().with_context(|| format!("not accepted: {answer:#}"))?;
    let stream = api.follow(path, None).await?;
    stream.check_order()?;
    let found = &stream.end()?["receipt"]["engine_version"];
    ensure!(*found == version, "it ran on {found}");
    Ok(())
}

/// The sum of the series of that name with that label, `name` or `name{label="value"}`, now or soon: what
/// is counted at the end of a task may be counted just after its client has seen the end.
#[then(expr = "the metric {word} is {int}")]
async fn metric(lab: &mut Lab, series: String, value: f64) -> Result<()> {
    let (name, label) = series.split_once('{').map_or((series.as_str(), ""), |(name, label)| (name, label));
    let label = label.trim_end_matches('}');
    let api = lab.api()?.clone();
    until(&format!("{series} is {value}"), || async {
        let text = api.metrics().await?;
        let of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        let lines: Vec<_> = text.lines().filter(of_name).filter(|line| line.contains(label)).collect();
        let found: f64 = lines.iter().filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
        ensure!(!lines.is_empty() || value == 0.0, "there is no {series}");
        ensure!((found - value).abs() < f64::EPSILON, "it is {found}:\n{}", lines.join("\n"));
        Ok(true)
    })
    .await?;
    Ok(())
}

#[then(expr = "the metric {word} is the answer's {string}")]
async fn metric_is_answers(lab: &mut Lab, series: String, pointer: String) -> Result<()> {
    let answer = lab.answer()?.json()?;
    let value = answer.pointer(&pointer).and_then(Value::as_f64);
    metric(lab, series, value.with_context(|| format!("no {pointer} in {answer:#}"))?).await
}

#[then(expr = "the counter {word} soon rose")]
async fn rose_at_all(lab: &mut Lab, counter: String) -> Result<()> {
    let before = *lab.noted.get(&counter).context("it was not noted")?;
    let api = lab.api()?.clone();
    until(&format!("{counter} rose"), || async { Ok(api.counter(&counter).await? > before) }).await?;
    Ok(())
}

#[given(expr = "the counter {word} is noted")]
#[when(expr = "the counter {word} is noted")]
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
