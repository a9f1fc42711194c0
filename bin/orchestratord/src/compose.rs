//! The composition module: the only place that names pool-managerd and the llama.cpp adapter.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};

use anyhow::Result;
use handoff::Claim;
use pool_managerd::{AppConfigError, StartError};
use wire::config::Config;
use worker_adapters_llamacpp_http::LlamaCpp;

use crate::exit::{CONFIG, Fatal, Held};
use crate::feed::Connect;
use crate::pool_manager::Endpoint;
use crate::serve::reachable;
use crate::settings::{Settings, with_causes};

/// pool-managerd, inside this process or beside it.
pub(crate) enum PoolManager {
    /// Inside: loopback, port 0, a random token.
    Embedded(pool_managerd::Running),
    /// Its own daemon on this host.
    External(Endpoint),
    /// No pool was configured at the start: it is started when one is. Until then the runtime directory's
    /// engines may be somebody else's.
    Later(OnceLock<pool_managerd::Running>),
}

impl PoolManager {
    /// Starts it, or finds it. `addr` is where this orchestratord listens, for those who find the
    /// runtime directory in use; see [`Held`].
    pub(crate) async fn start(settings: &Settings, addr: SocketAddr) -> Result<Self> {
        let config = &settings.config;
        if let Some(url) = &config.pool_managerd.url {
            return external(settings, url).map(Self::External);
        }
        if config.pools.is_empty() {
            return Ok(Self::Later(OnceLock::new()));
        }
        embedded(settings, config, addr).await.map(Self::Embedded)
    }

    /// Where it listens; `None` while it is not started.
    pub(crate) fn endpoint(&self) -> Option<Endpoint> {
        if let Self::External(endpoint) = self {
            return Some(endpoint.clone());
        }
        let running = self.inside()?;
        Some(Endpoint {
            url: format!("http://{}", running.addr()),
            token: running.token().to_owned(),
            inside: true,
        })
    }

    fn inside(&self) -> Option<&pool_managerd::Running> {
        match self {
            Self::Embedded(running) => Some(running),
            Self::Later(running) => running.get(),
            Self::External(_) => None,
        }
    }

    /// Hands on the pools of a changed configuration to what runs inside this process, which is started
    /// for the first ones; a daemon of its own reads the configuration itself. Says what it comes to.
    pub(crate) async fn configure(
        &self,
        settings: &Settings,
        addr: SocketAddr,
        config: &Config,
    ) -> Result<Vec<String>, String> {
        if let Some(running) = self.inside() {
            let changes = running.configure(config).map_err(|error| with_causes(&error))?;
            return Ok(changes.iter().map(ToString::to_string).collect());
        }
        let Self::Later(later) = self else { return Ok(Vec::new()) };
        if config.pools.is_empty() {
            return Ok(Vec::new());
        }
        // Everything else is as it was at the start.
        let config = Config { pools: config.pools.clone(), ..settings.config.clone() };
        let running = embedded(settings, &config, addr).await.map_err(|error| with_causes(&*error))?;
        if later.set(running).is_err() {
            return Err("pool-managerd was started twice; restart orchestratord".to_owned());
        }
        Ok(config.pools.iter().map(|pool| format!("{}: added", pool.id)).collect())
    }

    /// Stops what runs inside this process; its engines as their pools' `on_exit` says, and without
    /// grace from when `now` resolves.
    pub(crate) async fn shutdown(self, now: impl Future<Output = ()>) {
        let running = match self {
            Self::Embedded(running) => Some(running),
            Self::Later(running) => running.into_inner(),
            Self::External(_) => None,
        };
        if let Some(running) = running {
            running.shutdown_unless(now).await;
        }
    }
}

/// Starts it inside this process: loopback, port 0, a random token.
async fn embedded(settings: &Settings, config: &Config, addr: SocketAddr) -> Result<pool_managerd::Running> {
    let inside = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut app =
        pool_managerd::AppConfig::from_config(config, &settings.env, inside).map_err(
            |error| match error {
                AppConfigError::Pool { .. } => settings.mistake(&with_causes(&error)).into(),
                error => anyhow::Error::new(error).context("preparing to run engines"),
            },
        )?;
    app.holder = Some(format!("{} at http://{}", settings.command, reachable(addr)));
    let started = pool_managerd::App::start(app).await;
    started.map_err(|error| not_started(settings, error))
}

fn not_started(settings: &Settings, error: StartError) -> anyhow::Error {
    match error {
        StartError::Locked { runtime_dir, holder, who } => Held { runtime_dir, pid: holder, who }.into(),
        StartError::RuntimeDir { path, source } => settings.unusable_runtime(&path, &source).into(),
        StartError::Handoffs(source) => {
            settings.unusable_runtime(&settings.config.paths.runtime.join("engines"), &source).into()
        }
        error => anyhow::Error::new(error).context("preparing to run engines"),
    }
}

/// The program that listens on a port, for people.
pub(crate) async fn program_on(port: u16) -> Option<String> {
    let holder = tokio::task::spawn_blocking(move || pool_managerd::holder_of_port(port)).await.ok()??;
    Some(format!("{} (PID {})", holder.name, holder.pid))
}

fn external(settings: &Settings, url: &str) -> Result<Endpoint> {
    let pool_managerd = &settings.config.pool_managerd;
    let default = settings.config.paths.runtime.join("pool-managerd.token");
    let path = pool_managerd.token_file.clone().unwrap_or(default);
    let token = std::fs::read_to_string(&path).map_err(|error| {
        let message = format!(
            "cannot read pool-managerd's token from {}: {error}; start pool-managerd first, or name its file in pool_managerd.token_file",
            path.display()
        );
        Fatal::new(CONFIG, message)
    })?;
    Ok(Endpoint { url: url.trim_end_matches('/').to_owned(), token: token.trim().to_owned(), inside: false })
}

/// Adapters for claims.
pub(crate) fn connect() -> Connect {
    Arc::new(|claim: &Claim| {
        let adapter = LlamaCpp::new(&claim.url.to_string(), claim.handoff.api_key.as_deref());
        adapter.map(|adapter| Arc::new(adapter) as _).map_err(|error| error.to_string())
    })
}
