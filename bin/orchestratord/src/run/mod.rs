//! `orchestratord run`: one question, its answer on stdout as it comes, progress on stderr. A client
//! of the HTTP API like any other, also of the orchestratord that it starts itself.

mod answer;
pub(crate) mod client;
pub(crate) mod events;
mod output;

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use daemon::Signals;

use crate::app;
use crate::cli::RunArgs;
use crate::credentials::Access;
use crate::exit::{Fatal, Held, RUN, UNAVAILABLE};
use crate::listen;
use crate::logging::{self, Reader};
use crate::serve::{reachable, signals};
use crate::settings::Settings;
use answer::{Answer, Ended, Gone};
use client::Client;

/// Interrupted by the user, as shells count it.
const INTERRUPTED: u8 = 130;
/// An orchestratord that has the runtime directory starts or stops within this time.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is asked.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// Asks and prints.
pub async fn run(config: Option<&Path>, args: &RunArgs) -> Result<()> {
    let settings = Settings { command: RUN, ..Settings::read(config)? };
    logging::init(&settings.config.log, Reader::Asker);
    let mut signals = signals()?;
    let access = settings.access()?;
    let there = reachable(settings.config.api.listen);
    if listen::is_orchestratord(there).await {
        return ask(&Client::new(there, access)?, args, &mut signals, false).await;
    }
    run_or_join(settings, &access, args, &mut signals).await
}

/// Runs a private one, or uses the one that has the runtime directory.
async fn run_or_join(
    mut settings: Settings,
    access: &Access,
    args: &RunArgs,
    signals: &mut Signals,
) -> Result<()> {
    // Loopback, any free port, so that nothing else has to be asked for.
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    settings.config.api.listen = listen;
    settings.config.api.tokens_file = None;
    let over_tls = settings.config.api.tls.take().is_some();
    let mut refused_since = Instant::now();
    loop {
        let started = tokio::select! {
            started = app::start(&settings, listen) => started,
            () = signals.next() => return Err(interrupted()),
        };
        let held = match started {
            Ok(running) => return ask_own(running, args, signals).await,
            Err(error) => error.downcast::<Held>()?,
        };
        if let (true, Some(other)) = (over_tls, held.addr()) {
            let message = format!(
                "the orchestratord at https://{other} speaks TLS, which `orchestratord run` does not; \
                 ask it with curl or any OpenAI client"
            );
            return Err(Fatal::new(UNAVAILABLE, message).into());
        }
        match held.addr() {
            Some(other) if listen::is_orchestratord(other).await => {
                let who = held.who.as_deref().unwrap_or_default();
                let _ = writeln!(std::io::stderr(), "using the {who} (PID {})", held.pid);
                match ask(&Client::new(other, access.clone())?, args, signals, false).await {
                    Err(error) if error.is::<Gone>() => refused_since = Instant::now(),
                    result => return result,
                }
            }
            _ if refused_since.elapsed() > PATIENCE => return Err(held.into()),
            _ => {}
        }
        tokio::select! {
            () = tokio::time::sleep(ASK_EVERY) => {}
            () = signals.next() => return Err(interrupted()),
        }
    }
}

async fn ask_own(running: app::Running, args: &RunArgs, signals: &mut Signals) -> Result<()> {
    let result = match Client::new(running.addr(), Access::default()) {
        Ok(own) => ask(&own, args, signals, true).await,
        Err(error) => Err(error),
    };
    // Another `run` may have joined; what it is being told is told to the end.
    running.shutdown(signals.next()).await;
    result
}

fn interrupted() -> anyhow::Error {
    Fatal::new(INTERRUPTED, "interrupted").into()
}

async fn ask(client: &Client, args: &RunArgs, signals: &mut Signals, own: bool) -> Result<()> {
    let submit = async {
        let model = match &args.model {
            Some(model) => model.clone(),
            None => client.first_pool().await?,
        };
        client.submit(&model, args).await
    };
    let task = tokio::select! {
        task = submit => task?,
        () = signals.next() => return Err(interrupted()),
    };
    let mut answer = Answer::new(client, &task, own);
    let result = tokio::select! {
        result = answer.follow() => result,
        () = signals.next() => Err(interrupted()),
    };
    answer.close();
    if !matches!(result, Ok(Ended::Whole)) {
        // Free the slot at once instead of waiting for the detach grace.
        client.cancel(&task).await;
    }
    result.map(|_| ())
}
