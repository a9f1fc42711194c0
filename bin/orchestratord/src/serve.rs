//! `orchestratord serve`: the control plane until it is told to stop.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result};
use daemon::Signals;
use tokio::sync::Notify;
use wire::config::TokensFile;
use wire::pool::ReplicaError;
use wire::{Phase, PoolId, PoolView};

use crate::app::{self, Running};
use crate::follow_config::Follower;
use crate::logging::{self, Form, Reader};
use crate::progress::{Progress, reason};
use crate::settings::Settings;
use crate::tokens::Scope;

/// Runs until a signal asks it to end; a second one stops at once. SIGHUP reads the configuration again,
/// unless the terminal that it was started from has closed.
pub async fn serve(config: Option<&Path>) -> Result<()> {
    let settings = Settings::read(config)?;
    let form = logging::init(&settings.config.log, Reader::Daemon);
    let mut signals = signals()?;
    let running = tokio::select! {
        running = app::start(&settings, settings.config.api.listen) => running?,
        // Engines are started last, so there is none yet.
        () = signals.next() => return Ok(()),
    };
    tracing::info!(addr = %running.addr(), "listening");
    let asked = Notify::new();
    let follower = Follower { settings: &settings, running: &running };
    let file = settings.file.as_deref();
    tokio::select! {
        () = Announcer::new(&settings, &running, form).run() => {}
        never = daemon::follow(file, &settings.env, &settings.config, &asked, &follower) => match never {},
        () = signals.end(&asked) => {}
    }
    tracing::info!("stopping; once more stops at once");
    running.shutdown(signals.end(&asked)).await;
    Ok(())
}

/// Hears the signals that ask for the end, from now on.
pub(crate) fn signals() -> Result<Signals> {
    Signals::listen().context("listening for signals")
}

/// Shows the preparation, then what a person needs next.
struct Announcer<'a> {
    settings: &'a Settings,
    running: &'a Running,
    form: Form,
    progress: Progress,
    ready: Vec<PoolId>,
    failed: Vec<(PoolId, u64)>,
}

impl<'a> Announcer<'a> {
    fn new(settings: &'a Settings, running: &'a Running, form: Form) -> Self {
        let (ready, failed) = (Vec::new(), Vec::new());
        Self { settings, running, form, progress: Progress::lines(), ready, failed }
    }

    /// Never returns: there is always a signal to wait for.
    async fn run(mut self) {
        let mut views = self.running.state().pools.subscribe();
        let mut registry = self.running.state().registry.changed();
        loop {
            let pools = views.borrow_and_update().clone();
            registry.borrow_and_update();
            pools.iter().for_each(|pool| self.look(pool));
            self.look_at_others();
            let changed = tokio::select! {
                changed = views.changed() => changed,
                changed = registry.changed() => changed,
            };
            if changed.is_err() {
                // Who says it lives as long as what runs.
                return std::future::pending().await;
            }
        }
    }

    fn look(&mut self, pool: &PoolView) {
        if self.running.state().is_ready(&pool.id) {
            self.tell_ready(pool);
            return;
        }
        pool.steps.iter().for_each(|step| self.progress.step(step));
        for replica in pool.replicas.iter().filter(|replica| replica.phase == Phase::Failed) {
            let key = (pool.id.clone(), replica.generation);
            if let Some(error) = replica.last_error.as_ref().filter(|_| !self.failed.contains(&key)) {
                self.failed.push(key);
                self.tell_failure(&pool.id, error);
            }
        }
    }

    /// Pools that only handoffs speak of.
    fn look_at_others(&mut self) {
        let state = self.running.state();
        for id in state.dispatch.pool_ids() {
            if !self.ready.contains(&id)
                && state.is_ready(&id)
                && let Some(pool) = state.pool(&id)
            {
                self.tell_ready(&pool);
            }
        }
    }

    fn tell_ready(&mut self, pool: &PoolView) {
        if !self.ready.contains(&pool.id) {
            self.ready.push(pool.id.clone());
            banner(self.settings, self.running, pool);
        }
    }

    fn tell_failure(&self, pool: &PoolId, error: &ReplicaError) {
        match self.form {
            Form::Text => {
                let _ = writeln!(std::io::stderr(), "pool {pool} cannot run: {}", reason(error));
            }
            Form::Json => tracing::error!(
                %pool,
                cause = error.cause,
                remedy = error.remedy,
                log_tail = error.log_tail.join("\n"),
                "the pool cannot run: {}",
                error.message
            ),
        }
    }
}

fn banner(settings: &Settings, running: &Running, pool: &PoolView) {
    let scheme = if settings.config.api.tls.is_some() { "https" } else { "http" };
    let base = format!("{scheme}://{}", reachable(running.addr()));
    // pool-managerd's view is a moment old; the registry knows what takes tasks now.
    let snapshot = running.state().registry.snapshot();
    let ready = || snapshot.pool(&pool.id).map(|(_, replica)| replica).filter(|replica| replica.ready);
    let engine = ready().next().map(|replica| replica.engine_version.to_string()).unwrap_or_default();
    let slots: u32 = ready().map(|replica| replica.slots_total).sum();
    let key = match &settings.config.api.tokens_file {
        Some(_) => " -H \"Authorization: Bearer $LLAMA_ORCH_TOKEN\"",
        None => "",
    };
    let mut out = std::io::stdout().lock();
    let _ = writeln!(
        out,
        "\nllama-orch is ready\n\n  base URL  {base}   (OpenAI clients: {base}/v1)\n  pool      {id}: {model}, {slots} slot{s}, {engine}\n\n  curl -N {base}/v1/chat/completions{key} -H 'Content-Type: application/json' \\\n    -d '{{\"model\":\"{id}\",\"stream\":true,\"messages\":[{{\"role\":\"user\",\"content\":\"Write a haiku that includes the word rain\"}}]}}'\n",
        id = pool.id,
        model = pool.model_ref,
        s = if slots == 1 { "" } else { "s" },
    );
    match settings.config.api.tokens_file {
        Some(TokensFile::Generate) if settings.generated_token(Scope::Data).exists() => {
            let path = settings.generated_token(Scope::Data);
            let _ = writeln!(
                out,
                "  tokens    export LLAMA_ORCH_TOKEN=$(cat '{}')   (`orchestratord token new` makes more)\n",
                path.display()
            );
        }
        Some(_) => {
            let _ = writeln!(
                out,
                "  tokens    those of {}; `orchestratord token new` makes another\n",
                settings.tokens_path().display()
            );
        }
        None => {}
    }
    let _ = out.flush();
}

/// An address that a client on this machine can use.
pub(crate) fn reachable(addr: SocketAddr) -> SocketAddr {
    if addr.ip().is_unspecified() { ([127, 0, 0, 1], addr.port()).into() } else { addr }
}
