//! `orchestratord verify`: asks again what a receipt is of and compares what ran and what came out. A
//! client of the HTTP API like any other.

mod compare;
mod subject;

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};
use wire::event::{End, TaskEvent};
use wire::{ErrorCode, TaskId};

use self::compare::{Outcome, compare};
use self::subject::Subject;
use crate::cli::VerifyArgs;
use crate::exit::{Fatal, UNAVAILABLE};
use crate::listen;
use crate::logging::{self, Reader};
use crate::run::client::Client;
use crate::serve::{reachable, signals};
use crate::settings::Settings;

/// Other tokens came out.
const DIFFERS: u8 = 1;
/// Connections that may break off in the middle.
const RECONNECTS: u32 = 5;

/// Asks again and prints.
pub async fn run(config: Option<&Path>, args: &VerifyArgs) -> Result<()> {
    let settings = Settings::read(config)?;
    logging::init(&settings.config.log, Reader::Asker);
    let mut signals = signals()?;
    let there = reachable(settings.config.api.listen);
    if !listen::is_orchestratord(there).await {
        let message = format!("no orchestratord listens on {there}; start one, or name it with ORCHD_ADDR");
        return Err(Fatal::new(UNAVAILABLE, message).into());
    }
    let client = Client::new(there, settings.access()?)?;
    let subject = Subject::read(&client, args).await?;
    let task = client.post_task(&subject.request).await?;
    let again = tokio::select! {
        again = answer(&client, &task) => again,
        () = signals.next() => Err(Fatal::new(130, "interrupted").into()),
    };
    if again.is_err() {
        client.cancel(&task).await;
    }
    let (text, end) = again?;
    report(&subject, &compare(&subject, &text, &end))
}

/// What was answered this time.
async fn answer(client: &Client, task: &TaskId) -> Result<(String, End)> {
    let (mut text, mut last, mut broken) = (String::new(), None, 0);
    loop {
        let read = read(client, task, &mut text, &mut last).await;
        match read {
            Ok(Some(end)) => return Ok((text, end)),
            Err(error) if error.is::<Fatal>() => return Err(error),
            Ok(None) | Err(_) if broken < RECONNECTS => broken += 1,
            Ok(None) => bail!("the stream of task {task} broke off again and again"),
            Err(error) => return Err(error),
        }
    }
}

async fn read(
    client: &Client,
    task: &TaskId,
    text: &mut String,
    last: &mut Option<String>,
) -> Result<Option<End>> {
    let mut events = client.events(task, last.as_deref()).await?;
    while let Some(received) = events.next().await? {
        *last = received.id.or(last.take());
        match received.event {
            TaskEvent::Token(token) => text.push_str(&token.t),
            TaskEvent::End(end) => return Ok(Some(end)),
            TaskEvent::Error(error) => {
                let message =
                    format!("asked again, it failed with {}: {}", error.code.as_str(), error.message);
                let code = if error.code == ErrorCode::InvalidParams { DIFFERS } else { UNAVAILABLE };
                return Err(Fatal::new(code, message).into());
            }
            TaskEvent::Queued(_)
            | TaskEvent::Prep(_)
            | TaskEvent::Started(_)
            | TaskEvent::Metrics(_)
            | TaskEvent::Resumed(_) => {}
        }
    }
    Ok(None)
}

fn report(subject: &Subject, outcome: &Outcome) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let write = |out: &mut dyn Write, line: &str| writeln!(out, "{line}").context("writing to stdout");
    for line in subject.notes.iter().chain(&outcome.lines) {
        write(&mut out, line)?;
    }
    if outcome.same {
        write(&mut out, "the same answer")
    } else {
        Err(Fatal::new(DIFFERS, outcome.verdict.clone()).into())
    }
}
