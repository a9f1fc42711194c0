//! Streams: their order, resuming, several readers, errors at their end.

use anyhow::{Context, Result, ensure};
use cucumber::{then, when};

use crate::world::Lab;

#[when(expr = "a client follows task {string}")]
async fn follow(lab: &mut Lab, name: String) -> Result<()> {
    let path = format!("/v2/tasks/{}/events", lab.task(&name)?);
    let followed = lab.api()?.follow(&path, None).await?;
    lab.streams.insert(name, followed);
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

#[then(expr = "the text of {string} mentions {string}")]
fn text(lab: &mut Lab, name: String, words: String) -> Result<()> {
    let text = lab.stream(&name)?.text();
    ensure!(text.contains(&words), "{text}");
    Ok(())
}
