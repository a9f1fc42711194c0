//! Plain requests: any method, path, header and body; what came back.

use anyhow::{Context, Result, ensure};
use cucumber::gherkin::Step;
use cucumber::{then, when};
use serde_json::Value;
use test_harness_bdd::until;

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

/// A text with the ids of tasks in place of their names.
fn with_tasks(lab: &Lab, text: &str) -> String {
    let fill = |text: String, (name, id): (&String, &String)| text.replace(&format!("${name}"), id);
    lab.tasks.iter().fold(text.to_owned(), fill)
}

#[then(expr = "the operation becomes {word}")]
async fn operation(lab: &mut Lab, state: String) -> Result<()> {
    let id = field(lab, "/operation_id")?.as_str().context("no operation_id")?.to_owned();
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

#[then("the answer says when to come back")]
fn retry_after(lab: &mut Lab) -> Result<()> {
    let answer = lab.answer()?;
    let seconds = answer.headers.get("retry-after").context("no Retry-After")?.to_str()?;
    ensure!(seconds.parse::<u64>()? >= 1, "Retry-After is {seconds}");
    Ok(())
}

#[then(expr = "the answer's {string} is {string}")]
fn field_is(lab: &mut Lab, pointer: String, value: String) -> Result<()> {
    let found = field(lab, &pointer)?;
    let shown = found.as_str().map_or_else(|| found.to_string(), str::to_owned);
    ensure!(shown == value, "{pointer} is {shown}");
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

#[then(expr = "the answer mentions {string}")]
fn mentions(lab: &mut Lab, words: String) -> Result<()> {
    let answer = lab.answer()?;
    ensure!(answer.text.contains(&words), "it is {}", answer.text);
    Ok(())
}
