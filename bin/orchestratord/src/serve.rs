//! `orchestratord serve`: the control plane until it is told to stop.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};
use wire::{Phase, PoolView};

use crate::app::{self, Running};
use crate::logging;
use crate::progress::Progress;
use crate::settings::Settings;

/// Runs until TERM or INT; a second one stops at once.
pub async fn serve(config: Option<&Path>) -> Result<()> {
    let settings = Settings::read(config)?;
    logging::init(&settings.config.log, "info");
    let mut signals = Signals::new()?;
    let running = app::start(&settings, settings.config.api.listen).await?;
    tracing::info!(addr = %running.addr(), "listening");
    tokio::select! {
        () = announce(&settings, &running) => {}
        () = signals.next() => {}
    }
    tracing::info!("stopping; once more stops at once");
    running.shutdown(async move { signals.next().await }).await;
    Ok(())
}

/// TERM and INT.
pub(crate) struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    pub(crate) fn new() -> Result<Self> {
        let listen = |kind| signal(kind).context("listening for signals");
        Ok(Self { term: listen(SignalKind::terminate())?, int: listen(SignalKind::interrupt())? })
    }

    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}

/// Shows the preparation, then what a person needs next. Never returns: there is always a signal
/// to wait for.
async fn announce(settings: &Settings, running: &Running) {
    let mut progress = Progress::lines();
    let mut told_ready = Vec::new();
    let mut told_failed: Vec<(wire::PoolId, u64)> = Vec::new();
    loop {
        let pools = running.state().pools();
        for pool in &pools {
            if running.state().is_ready(&pool.id) {
                if !told_ready.contains(&pool.id) {
                    told_ready.push(pool.id.clone());
                    banner(settings, running, pool);
                }
            } else {
                pool.steps.iter().for_each(|step| progress.step(step));
                tell_failure(pool, &mut told_failed);
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn tell_failure(pool: &PoolView, told: &mut Vec<(wire::PoolId, u64)>) {
    for replica in pool.replicas.iter().filter(|replica| replica.phase == Phase::Failed) {
        let key = (pool.id.clone(), replica.generation);
        let Some(error) = replica.last_error.as_ref().filter(|_| !told.contains(&key)) else { continue };
        told.push(key);
        let remedy = error.remedy.as_deref().unwrap_or("change the configuration and start again");
        let mut stderr = std::io::stderr().lock();
        let _ = writeln!(stderr, "pool {} cannot run: {}\n  what to do: {remedy}", pool.id, error.message);
        for line in &error.log_tail {
            let _ = writeln!(stderr, "  | {line}");
        }
    }
}

fn banner(settings: &Settings, running: &Running, pool: &PoolView) {
    let base = format!("http://{}", reachable(running.addr()));
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
    if settings.config.api.tokens_file.is_some() {
        let path = settings.tokens_path();
        let _ = writeln!(out, "  tokens    {}\n", path.display());
    }
    let _ = out.flush();
}

/// An address that a client on this machine can use.
pub(crate) fn reachable(addr: std::net::SocketAddr) -> std::net::SocketAddr {
    if addr.ip().is_unspecified() { ([127, 0, 0, 1], addr.port()).into() } else { addr }
}
