//! The composition module: the only place that names pool-managerd and the llama.cpp adapter.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result};
use handoff::Claim;
use worker_adapters_llamacpp_http::LlamaCpp;

use crate::exit::{CONFIG, Fatal, LOCKED};
use crate::feed::Connect;
use crate::pool_manager::Endpoint;
use crate::settings::Settings;

/// pool-managerd, inside this process or beside it.
pub(crate) enum PoolManager {
    /// Inside: loopback, port 0, a random token.
    Embedded(pool_managerd::Running),
    /// Its own daemon on this host.
    External(Endpoint),
    /// No pool is configured.
    None,
}

impl PoolManager {
    /// Starts it, or finds it.
    pub(crate) async fn start(settings: &Settings) -> Result<Self> {
        let config = &settings.config;
        if let Some(url) = &config.pool_managerd.url {
            return external(settings, url).map(Self::External);
        }
        if config.pools.is_empty() {
            return Ok(Self::None);
        }
        let app = pool_managerd::AppConfig::from_config(
            config,
            &settings.env,
            SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        )
        .context("preparing pool-managerd")?;
        match pool_managerd::App::start(app).await {
            Ok(running) => Ok(Self::Embedded(running)),
            Err(error @ pool_managerd::StartError::Locked { .. }) => {
                Err(Fatal::new(LOCKED, error.to_string()).into())
            }
            Err(error) => Err(anyhow::Error::new(error).context("starting pool-managerd")),
        }
    }

    /// Where it listens.
    pub(crate) fn endpoint(&self) -> Option<Endpoint> {
        match self {
            Self::Embedded(running) => Some(Endpoint {
                url: format!("http://{}", running.addr()),
                token: running.token().to_owned(),
            }),
            Self::External(endpoint) => Some(endpoint.clone()),
            Self::None => None,
        }
    }

    /// Stops what runs inside this process; its engines as their pools' `on_exit` says.
    pub(crate) async fn shutdown(self) {
        if let Self::Embedded(running) = self {
            running.shutdown().await;
        }
    }
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
    Ok(Endpoint { url: url.trim_end_matches('/').to_owned(), token: token.trim().to_owned() })
}

/// Adapters for claims.
pub(crate) fn connect() -> Connect {
    Arc::new(|claim: &Claim| {
        let adapter = LlamaCpp::new(&claim.url.to_string(), claim.handoff.api_key.as_deref());
        adapter.map(|adapter| Arc::new(adapter) as _).map_err(|error| error.to_string())
    })
}
