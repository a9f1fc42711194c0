//! Plain requests: any method, path, header and body; what came back.

use anyhow::{Context, Result, ensure};
use cucumber::gherkin::Step;
use cucumber::{then, when};
use serde_json::Value;
use test_harness_bdd::until;
use test_harness_e2e_haiku::{Schema, checked};

use crate::world::{Answer, Lab};

#[when(expr = "a client asks {word} {word}")]
async fn ask(lab: &mut Lab, method: String, path: String, step: &Step) -> Result<()> {
    ask_with(lab, method, path, String::new(), step).await
}

#[when(expr = "a client asks {word} {word} with {string}")]
async fn ask_with(lab: &mut Lab, method: String, path: String, header: String, step: &Step) -> Result<()> {
    let path = with_tasks(lab, &path);
    let api = lab.api()?;
    let verb = method.parse::<reqwest::Method>().context("an HTTP method")?;
    let mut request = api.http().request(verb, api.url(&path));
    if let Some((name, value)) = header.split_once(": ") {
        request = request.header(name, value);
    }
    if let Some(body) = &step.docstring {
        let body = with_tasks(lab, body.trim());
        request = request.header("Content-Type", "application/json").body(body);
    }
    lab.answer = Some(Answer::of(&method, &path, request.send().await.context("asking")?).await?);
    Ok(())
}

/// A text with the ids of tasks and what was noted in place of their names.
fn with_tasks(lab: &Lab, text: &str) -> String {
    let fill = |text: String, (name, id): (&String, &String)| text.replace(&format!("${name}"), id);
    lab.tasks.iter().chain(&lab.noted_texts).fold(text.to_owned(), fill)
}

/// The one that the last answer is about.
#[then(expr = "the operation becomes {word}")]
async fn operation(lab: &mut Lab, state: String) -> Result<()> {
    note_operation(lab)?;
    noted_operation(lab, state).await
}

#[then("the operation is noted")]
fn note_operation(lab: &mut Lab) -> Result<()> {
    let id = shown(&field(lab, "/operation_id")?);
    ensure!(!id.is_empty() && id != "null", "the operation has no id: {}", lab.answer()?.text);
    lab.noted_texts.insert("operation".to_owned(), id);
    Ok(())
}

#[then(expr = "the operation tells {string}")]
async fn operation_tells(lab: &mut Lab, cause: String) -> Result<()> {
    let id = lab.noted_texts.get("operation").context("no operation was noted")?;
    let view = lab.api()?.get(&format!("/v2/operations/{id}")).await?;
    ensure!(view["outcome"]["error"]["cause"] == cause, "{view:#}");
    ensure!(view["outcome"]["message"].as_str().is_some_and(|text| !text.is_empty()), "{view:#}");
    Ok(())
}

#[then(expr = "the noted operation becomes {word}")]
async fn noted_operation(lab: &mut Lab, state: String) -> Result<()> {
    let id = lab.noted_texts.get("operation").context("no operation was noted")?.clone();
    let api = lab.api()?.clone();
    until(&format!("the operation is {state}"), || async {
        let view = api.get(&format!("/v2/operations/{id}")).await?;
        anyhow::ensure!(view["state"] == state, "{view:#}");
        Ok(true)
    })
    .await?;
    Ok(())
}

#[then(expr = "the answer is {int}")]
fn answered(lab: &mut Lab, status: u16) -> Result<()> {
    let answer = lab.answer()?;
    ensure!(answer.status == status, "it is {}: {}", answer.status, answer.text);
    Ok(())
}

#[then(expr = "the answer is {int} with code {string}")]
fn refusal(lab: &mut Lab, status: u16, code: String) -> Result<()> {
    let answer = lab.answer()?;
    ensure!(answer.status == status, "it is {}: {}", answer.status, answer.text);
    let error = &answer.json()?["error"];
    ensure!(error["code"] == code, "{error:#}");
    for field in ["message", "type"] {
        ensure!(error[field].as_str().is_some_and(|text| !text.is_empty()), "no {field}: {error:#}");
    }
    ensure!(error["retriable"].is_boolean(), "it does not say whether to try again: {error:#}");
    ensure!(answer.headers.contains_key("x-correlation-id"), "no correlation id");
    Ok(())
}

#[then(expr = "the answer has header {string} with {string}")]
fn header(lab: &mut Lab, name: String, value: String) -> Result<()> {
    let answer = lab.answer()?;
    let found = answer.headers.get(&name).and_then(|value| value.to_str().ok());
    ensure!(found == Some(&value), "{name} is {found:?}");
    Ok(())
}

#[then(expr = "asking GET {word} with {string} is soon answered {int}")]
async fn soon_answered_to(lab: &mut Lab, path: String, header: String, status: u16) -> Result<()> {
    let api = lab.api()?.clone();
    let token = lab.noted_texts.get("token").map(String::as_str).unwrap_or_default();
    let header = header.replace("$token", token);
    let (name, value) = header.split_once(": ").context("a header")?;
    until(&format!("{path} is answered {status}"), || async {
        let answer = api.http().get(api.url(&path)).header(name, value).send().await.context("asking")?;
        let (found, text) = checked("GET", &path, answer).await?;
        ensure!(found == status, "it is {found}: {text}");
        Ok(true)
    })
    .await?;
    Ok(())
}

#[when(expr = "the transcript of task {string} is asked for")]
async fn transcript(lab: &mut Lab, name: String, step: &Step) -> Result<()> {
    let view = lab.api()?.get(&format!("/v2/tasks/{}", lab.task(&name)?)).await?;
    let digest = view.pointer("/receipt/transcript_sha256").and_then(Value::as_str);
    let path = format!("/v2/artifacts/{}", digest.with_context(|| format!("no transcript: {view:#}"))?);
    ask(lab, "GET".to_owned(), path, step).await?;
    // Its operation hands out bytes of any kind; what is in these has a schema of its own.
    let answer = lab.answer()?;
    if answer.status == 200 { Schema::Transcript.check(&answer.json()?) } else { Ok(()) }
}

#[then(expr = "the answer's {string} is the text of {string}")]
fn field_is_stream(lab: &mut Lab, pointer: String, name: String) -> Result<()> {
    let (found, text) = (field(lab, &pointer)?, lab.stream(&name)?.text());
    ensure!(found == text && !text.is_empty(), "{pointer} is {found}, and the stream said {text}");
    Ok(())
}

#[when(expr = "a client registers engine {string} as replica {string} of pool {string}")]
async fn register(lab: &mut Lab, engine: String, replica: String, pool: String) -> Result<()> {
    let url = &lab.engines.get(&engine).with_context(|| format!("no engine {engine} runs"))?.1;
    let body = serde_json::json!({"url": url, "pool_id": pool, "replica_id": replica, "model": "m"});
    let (api, path) = (lab.api()?, "/v2/workers/register");
    let answer = api.http().post(api.url(path)).json(&body).send().await.context("registering")?;
    lab.answer = Some(Answer::of("POST", path, answer).await?);
    Ok(())
}

#[when(expr = "a client begins POST {word}")]
async fn begin(lab: &mut Lab, path: String, step: &Step) -> Result<()> {
    let body = step.docstring.as_deref().context("a body is a doc string")?.trim().to_owned();
    let api = lab.api()?;
    let request = api.http().post(api.url(&path)).header("Content-Type", "application/json").body(body);
    let answer = request.send().await.context("asking")?;
    ensure!(answer.status() == 200, "it is {}", answer.status());
    lab.open = Some(answer);
    Ok(())
}

#[when(expr = "a client opens the stream of task {string}")]
async fn open(lab: &mut Lab, name: String) -> Result<()> {
    let api = lab.api()?;
    let path = format!("/v2/tasks/{}/events", lab.task(&name)?);
    let answer = api.http().get(api.url(&path)).send().await.context("asking")?;
    ensure!(answer.status() == 200, "it is {}", answer.status());
    lab.open = Some(answer);
    Ok(())
}

#[when("that client hangs up")]
fn hang_up(lab: &mut Lab) -> Result<()> {
    lab.open.take().map(drop).context("no client reads anything")
}

#[then("the answer's events are")]
fn events_are(lab: &mut Lab, step: &Step) -> Result<()> {
    let text = &lab.answer()?.text;
    let found: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    let expected = step.docstring.as_deref().context("the names are a doc string")?;
    ensure!(found == expected.split_whitespace().collect::<Vec<_>>(), "{found:?} in\n{text}");
    Ok(())
}

#[then("the answer says when to come back")]
fn retry_after(lab: &mut Lab) -> Result<()> {
    let answer = lab.answer()?;
    let seconds = answer.headers.get("retry-after").context("no Retry-After")?.to_str()?;
    ensure!(seconds.parse::<u64>()? >= 1, "Retry-After is {seconds}");
    Ok(())
}

#[then(expr = "the answer's {string} is {string}")]
fn field_is(lab: &mut Lab, pointer: String, value: String) -> Result<()> {
    let found = shown(&field(lab, &pointer)?);
    ensure!(found == value, "{pointer} is {found}");
    Ok(())
}

#[then(expr = "the answer's {string} is noted as {string}")]
fn note_field(lab: &mut Lab, pointer: String, name: String) -> Result<()> {
    let found = field(lab, &pointer)?;
    let text = found.as_str().unwrap_or_default();
    ensure!(!text.is_empty(), "{pointer} is {found}");
    lab.noted_texts.insert(name, text.to_owned());
    Ok(())
}

#[then(expr = "the answer's {string} is a text")]
fn field_is_text(lab: &mut Lab, pointer: String) -> Result<()> {
    let found = field(lab, &pointer)?;
    ensure!(found.as_str().is_some_and(|text| !text.trim().is_empty()), "{pointer} is {found}");
    Ok(())
}

#[then(expr = "the answer's {string} mentions {string}")]
fn field_mentions(lab: &mut Lab, pointer: String, words: String) -> Result<()> {
    let found = field(lab, &pointer)?.to_string();
    ensure!(found.contains(&words), "{pointer} is {found}");
    Ok(())
}

/// `/error/param`, as JSON pointers are written.
fn field(lab: &Lab, pointer: &str) -> Result<Value> {
    let json = lab.answer()?.json()?;
    json.pointer(pointer).cloned().with_context(|| format!("no {pointer} in {json:#}"))
}

/// What a GET shows, now or soon.
#[then(expr = "GET {word} soon shows {string} at {string}")]
async fn soon(lab: &mut Lab, path: String, value: String, pointer: String) -> Result<()> {
    let (api, path) = (lab.api()?.clone(), with_tasks(lab, &path));
    until(&format!("{path} shows {value}"), || async {
        let view = api.get(&path).await?;
        let found = view.pointer(&pointer).with_context(|| format!("no {pointer} in {view:#}"))?;
        ensure!(shown(found) == value, "{pointer} is {found}");
        Ok(true)
    })
    .await?;
    Ok(())
}

#[then(expr = "asking GET {word} is soon answered {int}")]
async fn soon_answered(lab: &mut Lab, path: String, status: u16) -> Result<()> {
    let (api, path) = (lab.api()?.clone(), with_tasks(lab, &path));
    until(&format!("{path} is answered {status}"), || async {
        let answer = api.http().get(api.url(&path)).send().await.context("asking")?;
        let (found, text) = checked("GET", &path, answer).await?;
        ensure!(found == status, "it is {found}: {text}");
        Ok(true)
    })
    .await?;
    Ok(())
}

#[then(expr = "the answer's {string} is a number above {int}")]
fn field_above(lab: &mut Lab, pointer: String, least: f64) -> Result<()> {
    let found = field(lab, &pointer)?;
    ensure!(found.as_f64().is_some_and(|found| found > least), "{pointer} is {found}");
    Ok(())
}

#[then(expr = "the answer has no {string}")]
fn no_field(lab: &mut Lab, pointer: String) -> Result<()> {
    let json = lab.answer()?.json()?;
    ensure!(json.pointer(&pointer).is_none(), "{json:#}");
    Ok(())
}

/// Best first, and the same text has the same score wherever it stands.
#[then(expr = "the answer scores document {int} as document {int} and not as document {int}")]
fn scores(lab: &mut Lab, one: u64, same: u64, other: u64) -> Result<()> {
    let results = field(lab, "/results")?;
    let results = results.as_array().context("the results are no list")?;
    let scores: Option<Vec<f64>> = results.iter().map(|found| found["relevance_score"].as_f64()).collect();
    let scores = scores.with_context(|| format!("a result without its score: {results:#?}"))?;
    ensure!(scores.is_sorted_by(|before, after| before >= after), "not the best first: {results:#?}");
    let of = |document: u64| {
        let at = results.iter().position(|found| found["index"] == document);
        at.map(|at| scores[at]).with_context(|| format!("nothing about document {document}: {results:#?}"))
    };
    let (one, same, other) = (of(one)?, of(same)?, of(other)?);
    let near = |a: f64, b: f64| (a - b).abs() <= 1e-3 * a.abs().max(b.abs());
    ensure!(near(one, same) && !near(one, other), "{results:#?}");
    Ok(())
}

/// A text without its quotes, anything else as JSON.
fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[then(expr = "the answer does not mention {string}")]
fn mentions_not(lab: &mut Lab, words: String) -> Result<()> {
    let answer = lab.answer()?;
    ensure!(!answer.text.contains(&words), "it is {}", answer.text);
    Ok(())
}

#[then(expr = "the answer mentions {string}")]
fn mentions(lab: &mut Lab, words: String) -> Result<()> {
    let answer = lab.answer()?;
    let operation = lab.noted_texts.get("operation").map(String::as_str).unwrap_or_default();
    ensure!(answer.text.contains(&words.replace("$operation", operation)), "it is {}", answer.text);
    Ok(())
}
