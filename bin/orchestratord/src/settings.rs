//! Everything a start of orchestratord depends on, read once: the configuration file, the
//! environment over it, and the development shim.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use config_loader::{Env, Origin};
use tokio_rustls::rustls::ServerConfig;
use wire::config::{Config, TlsConfig};
use wire::{Handoff, PoolId, ReplicaId};

use crate::exit::{CONFIG, Fatal, SERVE};
use crate::http::{ServerLimits, tls};

/// What a start depends on.
pub(crate) struct Settings {
    pub(crate) config: Config,
    pub(crate) env: Env,
    /// An engine to bind at start (`ORCHD_LLAMACPP_URL`).
    pub(crate) shim: Option<Handoff>,
    /// The configuration file, where there is one.
    pub(crate) file: Option<PathBuf>,
    /// What this process calls itself where others may ask.
    pub(crate) command: &'static str,
    /// Of the listener; constants but for tests.
    pub(crate) limits: ServerLimits,
}

impl Settings {
    /// Reads it all; errors end the process with exit code 2.
    pub(crate) fn read(path: Option<&Path>) -> Result<Self> {
        let env = Env::from_process().map_err(|error| Fatal::new(CONFIG, error.to_string()))?;
        let loaded =
            config_loader::load(path, &env).map_err(|error| Fatal::new(CONFIG, error.to_string()))?;
        let file = match &loaded.origin {
            Origin::File(path) => Some(path.clone()),
            Origin::BuiltIn => None,
        };
        let mut config = loaded.config;
        let shim = shim(&env)?;
        if shim.is_some() && matches!(loaded.origin, Origin::BuiltIn) {
            // Someone who brings an engine and no configuration wants that engine only.
            config.pools.clear();
        }
        Ok(Self { config, env, shim, file, command: SERVE, limits: ServerLimits::default() })
    }

    /// What the listener offers over TLS, where certificates are configured.
    pub(crate) fn tls(&self) -> Result<Option<(TlsConfig, ServerConfig)>> {
        let Some(config) = &self.config.api.tls else { return Ok(None) };
        match tls::read(config) {
            Ok(server) => Ok(Some((config.clone(), server))),
            Err(error) => Err(self.mistake(&format!("api.tls: {}", with_causes(&error))).into()),
        }
    }

    /// Bytes that a body may have, per route.
    pub(crate) fn body_limits(&self) -> BTreeMap<String, usize> {
        let limits = &self.config.api.body_limits;
        let here = |bytes: &u64| usize::try_from(*bytes).unwrap_or(usize::MAX);
        limits.iter().map(|(path, bytes)| (path.clone(), here(bytes))).collect()
    }

    /// Whether tasks outlive the process: those of a daemon do, those of one question do not.
    pub(crate) fn keeps_tasks(&self) -> bool {
        self.command == SERVE
    }

    /// A mistake in the configuration, with the file that it is in.
    pub(crate) fn mistake(&self, problem: &str) -> Fatal {
        match &self.file {
            Some(file) => Fatal::new(CONFIG, format!("{}: {problem}", file.display())),
            None => Fatal::new(CONFIG, problem),
        }
    }

    /// The runtime directory cannot be used.
    pub(crate) fn unusable_runtime(&self, path: &Path, why: &dyn std::error::Error) -> Fatal {
        let message = format!(
            "cannot use {} in the runtime directory {}: {}; check its permissions and the free space, \
             or choose another directory with ORCHD_RUNTIME_DIR or paths.runtime",
            path.display(),
            self.config.paths.runtime.display(),
            with_causes(why)
        );
        Fatal::new(CONFIG, message)
    }
}

/// An error and its causes in one line, for people.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// The development shim: an engine that someone else started.
fn shim(env: &Env) -> Result<Option<Handoff>> {
    let variable = |name| env.text(name).map_err(|error| Fatal::new(CONFIG, error.to_string()));
    let Some(url) = variable("ORCHD_LLAMACPP_URL")? else { return Ok(None) };
    let wrong = |name: &str, error: String| Fatal::new(CONFIG, format!("{name}: {error}"));
    let pool = variable("ORCHD_LLAMACPP_POOL")?.unwrap_or("default");
    let pool = PoolId::try_new(pool).map_err(|error| wrong("ORCHD_LLAMACPP_POOL", error.to_string()))?;
    let replica = variable("ORCHD_LLAMACPP_REPLICA")?.unwrap_or("r0");
    let replica = ReplicaId::try_new(replica).map_err(|e| wrong("ORCHD_LLAMACPP_REPLICA", e.to_string()))?;
    handoff::EngineUrl::try_new(url).map_err(|error| wrong("ORCHD_LLAMACPP_URL", error.to_string()))?;
    let minimal = serde_json::json!({"url": url, "provisioning_mode": "external"});
    let mut handoff: Handoff =
        serde_json::from_value(minimal).context("building the handoff of ORCHD_LLAMACPP_URL")?;
    handoff.pool_id = pool;
    handoff.replica_id = replica;
    Ok(Some(handoff))
}
