//! One task followed to its end: tokens to the output, what it waits for to stderr.

use std::io;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::MissedTickBehavior;
use wire::event::{StreamError, TaskEvent};
use wire::{ErrorCode, TaskId};

use super::client::Client;
use super::events::{Events, Received};
use super::output::Output;
use crate::exit::{Fatal, UNAVAILABLE};
use crate::pool_manager::{RESTART, SAVE};
use crate::progress::{Progress, hopeless};

/// Reconnections in a row before a stream is given up.
const RECONNECTS: u64 = 5;
/// How often a pool that is waited for is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// All of it is written.
    Whole,
    /// Nobody reads stdout any more.
    Unread,
}

/// The orchestratord went away before it said anything; another may be asked.
#[derive(Debug, thiserror::Error)]
#[error("the orchestratord that was asked went away before its answer began")]
pub(super) struct Gone;

/// How reading one connection ended.
enum Read {
    /// There is nothing more to read.
    Ended(Result<Ended>),
    /// Another connection may say more.
    Broken(anyhow::Error),
}

/// An answer being printed.
pub(super) struct Answer<'a> {
    client: &'a Client,
    task: &'a TaskId,
    /// It runs inside this process and ends with it.
    own: bool,
    progress: Progress,
    output: Output,
    last_id: Option<String>,
    waiting: bool,
    tokens: u64,
}

impl<'a> Answer<'a> {
    pub(super) fn new(client: &'a Client, task: &'a TaskId, own: bool) -> Self {
        let (progress, output) = (Progress::moving(), Output::stdout());
        Self { client, task, own, progress, output, last_id: None, waiting: true, tokens: 0 }
    }

    pub(super) async fn follow(&mut self) -> Result<Ended> {
        let mut attempts = 0;
        loop {
            let position = self.last_id.clone();
            let broken = match self.client.events(self.task, position.as_deref()).await {
                Ok(events) => match self.read(events).await {
                    Read::Ended(ended) => return ended,
                    Read::Broken(error) => error,
                },
                Err(error) => error,
            };
            attempts = if self.last_id == position { attempts + 1 } else { 1 };
            if attempts > RECONNECTS {
                return Err(if self.tokens == 0 {
                    Gone.into()
                } else {
                    broken.context("following the task")
                });
            }
            tokio::time::sleep(Duration::from_millis(200 * attempts)).await;
        }
    }

    async fn read(&mut self, mut events: Events) -> Read {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let shown = tokio::select! {
                event = events.next() => match event {
                    Ok(Some(Received { id, event })) => {
                        self.last_id = id.or(self.last_id.take());
                        self.show(event)
                    }
                    Ok(None) => return Read::Broken(anyhow::anyhow!("the stream ended early")),
                    Err(error) => return Read::Broken(error),
                },
                _ = looks.tick(), if self.waiting => self.look().await,
            };
            if let Some(ended) = shown.transpose() {
                return Read::Ended(ended);
            }
        }
    }

    /// Whether what is waited for can still come. The stream says how each step went, the pool what
    /// follows from it.
    async fn look(&mut self) -> Result<Option<Ended>> {
        // An orchestratord that does not answer is noticed by its stream.
        let Ok(pool) = self.client.pool_of(self.task).await else { return Ok(None) };
        let Some(why) = hopeless(&pool) else {
            self.progress.losses(&pool);
            return Ok(None);
        };
        let why = if self.own { for_one_run(&why) } else { why };
        Err(Fatal::new(UNAVAILABLE, format!("pool {} cannot run: {why}", pool.id)).into())
    }

    /// Shows one event; says how the answer ended after the last.
    fn show(&mut self, event: TaskEvent) -> Result<Option<Ended>> {
        let written = match event {
            TaskEvent::Prep(step) => {
                self.progress.step(&step);
                Ok(None)
            }
            TaskEvent::Started(_) => {
                self.waiting = false;
                self.progress.clear();
                Ok(None)
            }
            TaskEvent::Token(token) => {
                self.tokens += 1;
                self.output.text(&token.t).map(|()| None)
            }
            TaskEvent::End(_) => self.output.end_line().map(|()| Some(Ended::Whole)),
            TaskEvent::Error(error) => return Err(self.failure(&error)),
            TaskEvent::Resumed(resumed) if resumed.from_index < self.tokens => {
                return Err(anyhow::anyhow!(
                    "a crash has taken what the answer said from token {} on, and what follows is another; \
                     ask again",
                    resumed.from_index
                ));
            }
            TaskEvent::Queued(_) | TaskEvent::Metrics(_) | TaskEvent::Resumed(_) => Ok(None),
        };
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Some(Ended::Unread)),
            other => other.context("writing to stdout"),
        }
    }

    fn failure(&self, error: &StreamError) -> anyhow::Error {
        if error.code == ErrorCode::Interrupted && self.tokens == 0 && !self.own {
            return Gone.into();
        }
        Fatal::new(UNAVAILABLE, format!("{}: {}", error.code.as_str(), error.message)).into()
    }

    /// Nothing more comes: what is printed next starts on a line of its own.
    pub(super) fn close(&mut self) {
        self.progress.clear();
        let _nobody_reads = self.output.end_line();
    }
}

/// What restarts a pool here is to ask once more.
fn for_one_run(why: &str) -> String {
    let rest = |line: &str| {
        let (first, _) = line.split_once(RESTART).or_else(|| line.split_once(SAVE))?;
        Some(format!("{first}run this again"))
    };
    why.lines().map(|line| rest(line).unwrap_or_else(|| line.to_owned())).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remedy_speaks_to_somebody_who_asked_once() {
        let why = "no gcc\n  what to do: install it, then restart orchestratord, or POST /v2/pools/p/preload\n  | oh";
        assert_eq!(for_one_run(why), "no gcc\n  what to do: install it, then run this again\n  | oh");
        assert_eq!(
            for_one_run("correct `flags`, then save the configuration"),
            "correct `flags`, then run this again"
        );
    }
}
