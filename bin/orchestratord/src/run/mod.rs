//! `orchestratord run`: one question, its answer on stdout as it comes, progress on stderr. A client
//! of the HTTP API like any other, also of the orchestratord that it starts itself.

mod client;
mod events;

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use wire::event::TaskEvent;
use wire::{StepStatus, TaskId};

use crate::cli::RunArgs;
use crate::exit::{Fatal, UNAVAILABLE};
use crate::progress::Progress;
use crate::serve::{Signals, reachable};
use crate::settings::Settings;
use crate::{app, logging};
use client::Client;

/// Interrupted by the user, as shells count it.
const INTERRUPTED: u8 = 130;
/// Reconnections in a row before a stream is given up.
const RECONNECTS: u32 = 5;

/// Asks and prints.
pub async fn run(config: Option<&Path>, args: &RunArgs) -> Result<()> {
    let mut settings = Settings::read(config)?;
    logging::init(&settings.config.log, "warn");
    let mut signals = Signals::new()?;
    let token = settings.env.text("LLAMA_ORCH_TOKEN").unwrap_or_default().map(str::to_owned);
    let there = Client::new(reachable(settings.config.api.listen), token)?;
    if there.is_orchestratord().await {
        return ask(&there, args, &mut signals).await;
    }
    // A private one: loopback, any free port, so that nothing else has to be asked for.
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    settings.config.api.listen = listen;
    settings.config.api.tokens_file = None;
    let running = tokio::select! {
        running = app::start(&settings, listen) => running?,
        () = signals.next() => return Err(interrupted()),
    };
    let own = Client::new(running.addr(), None)?;
    let result = ask(&own, args, &mut signals).await;
    // Nobody else is being served, so there is nothing to wait for.
    running.shutdown(std::future::ready(())).await;
    result
}

fn interrupted() -> anyhow::Error {
    Fatal::new(INTERRUPTED, "interrupted").into()
}

async fn ask(client: &Client, args: &RunArgs, signals: &mut Signals) -> Result<()> {
    let model = match &args.model {
        Some(model) => model.clone(),
        None => client.first_pool().await?,
    };
    let task = client.submit(&model, args).await?;
    let mut answer = Answer { progress: Progress::moving(), last_id: None, tokens: 0 };
    let result = tokio::select! {
        result = answer.follow(client, &task) => result,
        () = signals.next() => Err(interrupted()),
    };
    answer.progress.clear();
    if result.is_err() {
        // Free the slot at once instead of waiting for the detach grace.
        client.cancel(&task).await;
    }
    result
}

/// An answer being printed.
struct Answer {
    progress: Progress,
    last_id: Option<String>,
    tokens: u64,
}

impl Answer {
    async fn follow(&mut self, client: &Client, task: &TaskId) -> Result<()> {
        let mut attempts = 0;
        loop {
            let error = match client.events(task, self.last_id.as_deref()).await {
                Ok(mut events) => loop {
                    match events.next().await {
                        Ok(Some(event)) => {
                            attempts = 0;
                            if let Some(id) = event.id {
                                self.last_id = Some(id);
                            }
                            if self.show(client, event.event).await? {
                                return Ok(());
                            }
                        }
                        Ok(None) => break anyhow::anyhow!("the stream ended early"),
                        Err(error) => break error,
                    }
                },
                Err(error) => error,
            };
            attempts += 1;
            if attempts > RECONNECTS {
                return Err(error.context("following the task"));
            }
            tokio::time::sleep(Duration::from_millis(200 * u64::from(attempts))).await;
        }
    }

    /// Shows one event; true after the last.
    async fn show(&mut self, client: &Client, event: TaskEvent) -> Result<bool> {
        match event {
            TaskEvent::Prep(step) => {
                self.progress.step(&step);
                if step.status == StepStatus::Failed {
                    self.progress.clear();
                    let pool = step.id.split('/').next().unwrap_or_default();
                    let why = client.failure_of(pool).await.unwrap_or(step.description);
                    return Err(Fatal::new(UNAVAILABLE, format!("pool {pool} cannot run: {why}")).into());
                }
            }
            TaskEvent::Started(_) => self.progress.clear(),
            TaskEvent::Token(token) => {
                self.tokens += 1;
                let mut out = std::io::stdout().lock();
                out.write_all(token.t.as_bytes()).and_then(|()| out.flush()).context("writing to stdout")?;
            }
            TaskEvent::End(_) => {
                writeln!(std::io::stdout()).context("writing to stdout")?;
                return Ok(true);
            }
            TaskEvent::Error(error) => {
                if self.tokens > 0 {
                    let _ = writeln!(std::io::stdout());
                }
                return Err(
                    Fatal::new(UNAVAILABLE, format!("{}: {}", error.code.as_str(), error.message)).into()
                );
            }
            TaskEvent::Queued(_) | TaskEvent::Metrics(_) | TaskEvent::Resumed(_) => {}
        }
        Ok(false)
    }
}
