//! Streams: their order, resuming, several readers, errors at their end.

use anyhow::{Context, Result, ensure};
use cucumber::{then, when};
use test_harness_e2e_haiku::Api;

use crate::world::Lab;

#[when(expr = "a client follows task {string}")]
async fn follow(lab: &mut Lab, name: String) -> Result<()> {
    let path = format!("/v2/tasks/{}/events", lab.task(&name)?);
    let followed = lab.api()?.follow(&path, None).await?;
    lab.streams.insert(name, followed);
    Ok(())
}

/// One that had opened it, and read nothing.
#[when(expr = "that client reads the stream of task {string} to its end")]
async fn reads_on(lab: &mut Lab, name: String) -> Result<()> {
    let path = format!("/v2/tasks/{}/events", lab.task(&name)?);
    let open = lab.open.take().context("no client has a stream open")?;
    lab.streams.insert(name, Api::read(&path, open).await?);
    Ok(())
}

#[then(expr = "the stream of {string} is started, tokens without a gap, and one end")]
fn order(lab: &mut Lab, name: String) -> Result<()> {
    lab.stream(&name)?.check_order()
}

#[then(expr = "the stream of {string} has {int} tokens")]
fn tokens(lab: &mut Lab, name: String, count: usize) -> Result<()> {
    let found = lab.stream(&name)?.named("token").count();
    ensure!(found == count, "it has {found}");
    Ok(())
}

#[then(expr = "the stream of {string} ends with error {string}")]
fn error(lab: &mut Lab, name: String, code: String) -> Result<()> {
    let last = lab.stream(&name)?.events.last().context("an empty stream")?;
    ensure!(last.name == "error" && last.data["code"] == code, "it ends with {last:?}");
    ensure!(last.data["message"].as_str().is_some_and(|text| !text.is_empty()), "{last:?}");
    Ok(())
}

#[then(expr = "the stream of {string} ends because of {string}")]
fn finish(lab: &mut Lab, name: String, reason: String) -> Result<()> {
    let end = lab.stream(&name)?.end()?;
    ensure!(end["finish_reason"] == reason, "{end:#}");
    Ok(())
}

#[then(expr = "whoever resumes {string} after any event gets exactly the rest")]
async fn resume(lab: &mut Lab, name: String) -> Result<()> {
    let path = format!("/v2/tasks/{}/events", lab.task(&name)?);
    let whole = lab.stream(&name)?.clone();
    for (at, event) in whole.events.iter().enumerate() {
        let id = event.id.as_deref().with_context(|| format!("event {at} has no id"))?;
        let rest = lab.api()?.follow(&path, Some(id)).await?;
        ensure!(rest.events == whole.events[at + 1..], "after event {at}: {:?}", rest.events);
    }
    Ok(())
}

#[then(expr = "a second reader of {string} gets the same")]
async fn again(lab: &mut Lab, name: String) -> Result<()> {
    let path = format!("/v2/tasks/{}/events", lab.task(&name)?);
    let second = lab.api()?.follow(&path, None).await?;
    ensure!(second.events == lab.stream(&name)?.events, "{:?}", second.events);
    Ok(())
}

#[then(expr = "the streams of {string} and {string} have the same text")]
fn same_text(lab: &mut Lab, one: String, other: String) -> Result<()> {
    let (one, other) = (lab.stream(&one)?.text(), lab.stream(&other)?.text());
    ensure!(!one.is_empty() && one == other, "{one:?} and {other:?}");
    Ok(())
}

#[then(expr = "the last event of {string} counts the tokens that were sent")]
fn counts(lab: &mut Lab, name: String) -> Result<()> {
    let stream = lab.stream(&name)?;
    let last = stream.events.last().context("an empty stream")?;
    let sent = stream.named("token").count();
    ensure!(sent > 0 && last.data["tokens_sent"] == sent, "{sent} were sent, and {last:?}");
    Ok(())
}

#[then(expr = "the text of {string} does not mention {string}")]
fn text_not(lab: &mut Lab, name: String, words: String) -> Result<()> {
    let text = lab.stream(&name)?.text();
    ensure!(!text.is_empty() && !text.contains(&words), "{text}");
    Ok(())
}

#[then(expr = "the text of {string} mentions {string}")]
fn text(lab: &mut Lab, name: String, words: String) -> Result<()> {
    let text = lab.stream(&name)?.text();
    ensure!(text.contains(&words), "{text}");
    Ok(())
}

#[when(expr = "a client reads {int} tokens of task {string} and leaves")]
async fn leaves(lab: &mut Lab, count: usize, name: String) -> Result<()> {
    let path = format!("/v2/tasks/{}/events", lab.task(&name)?);
    let followed = lab.api()?.follow_until(&path, count).await?;
    lab.streams.insert(name, followed);
    Ok(())
}

/// As a browser does that lost its connection.
#[when(expr = "the client of task {string} comes back")]
async fn comes_back(lab: &mut Lab, name: String) -> Result<()> {
    let path = format!("/v2/tasks/{}/events", lab.task(&name)?);
    let mut whole = lab.stream(&name)?.clone();
    let last = whole.events.last().and_then(|event| event.id.clone()).context("it read nothing")?;
    whole.events.extend(lab.api()?.follow(&path, Some(&last)).await?.events);
    lab.streams.insert(name, whole);
    Ok(())
}

#[then(expr = "the stream of {string} goes on behind one seam without a gap")]
fn seam(lab: &mut Lab, name: String) -> Result<()> {
    let stream = lab.stream(&name)?;
    let resumed: Vec<_> = stream.named("resumed").collect();
    ensure!(resumed.len() == 1, "{resumed:?}");
    let from = resumed[0].data["from_index"].as_u64().context("no from_index")?;
    let before = stream.events.iter().take_while(|event| event.name != "resumed");
    let before = before.filter(|event| event.name == "token").count() as u64;
    ensure!(from == before && before > 0, "{before} tokens before it, and it says {from}");
    for (expected, event) in stream.named("token").enumerate() {
        ensure!(event.data["i"] == expected as u64, "token {expected} carries {}", event.data["i"]);
    }
    let seams = &stream.end()?["receipt"]["seams"];
    ensure!(seams.as_array().is_some_and(|seams| seams.len() == 1), "the receipt has {seams}");
    ensure!(seams[0]["from_index"] == from, "the receipt has {seams}");
    Ok(())
}

#[then(expr = "the stream of {string} has an event {string} whose {string} is {string}")]
fn has_event(lab: &mut Lab, name: String, event: String, pointer: String, value: String) -> Result<()> {
    let stream = lab.stream(&name)?;
    let shown = |found: &serde_json::Value| found.as_str().map_or_else(|| found.to_string(), str::to_owned);
    let mut found = stream.named(&event).filter_map(|event| event.data.pointer(&pointer)).map(shown);
    ensure!(found.any(|found| found == value), "{:?}", stream.events);
    Ok(())
}

#[then(expr = "the stream of {string} tells {string} before it is started")]
fn before_start(lab: &mut Lab, name: String, event: String) -> Result<()> {
    let stream = lab.stream(&name)?;
    let mut before = stream.events.iter().take_while(|event| event.name != "started");
    ensure!(before.any(|found| found.name == event), "{:?}", stream.events);
    Ok(())
}

#[when(expr = "a client follows task {string} verbosely")]
async fn follow_verbosely(lab: &mut Lab, name: String) -> Result<()> {
    let path = format!("/v2/tasks/{}/events?verbose=true", lab.task(&name)?);
    let followed = lab.api()?.follow(&path, None).await?;
    lab.streams.insert(name, followed);
    Ok(())
}
