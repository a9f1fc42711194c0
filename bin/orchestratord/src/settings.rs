//! Everything a start of orchestratord depends on, read once: the configuration file, the
//! environment over it, and the development shim.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use config_loader::{Env, Origin};
use wire::config::{Config, TokensFile};
use wire::{Handoff, PoolId, ReplicaId};

use crate::exit::{CONFIG, Fatal};
use crate::tokens::Tokens;

/// What a start depends on.
pub(crate) struct Settings {
    pub(crate) config: Config,
    pub(crate) env: Env,
    /// An engine to bind at start (`ORCHD_LLAMACPP_URL`).
    pub(crate) shim: Option<Handoff>,
}

impl Settings {
    /// Reads it all; errors end the process with exit code 2.
    pub(crate) fn read(path: Option<&Path>) -> Result<Self> {
        let env = Env::from_process().map_err(|error| Fatal::new(CONFIG, error.to_string()))?;
        let loaded =
            config_loader::load(path, &env).map_err(|error| Fatal::new(CONFIG, error.to_string()))?;
        let mut config = loaded.config;
        let shim = shim(&env)?;
        if shim.is_some() && matches!(loaded.origin, Origin::BuiltIn) {
            // Someone who brings an engine and no configuration wants that engine only.
            config.pools.clear();
        }
        Ok(Self { config, env, shim })
    }

    /// The bearer tokens; refuses an address that others can reach without any.
    pub(crate) fn tokens(&self) -> Result<Option<Tokens>> {
        let api = &self.config.api;
        let Some(file) = &api.tokens_file else {
            if api.listen.ip().is_loopback() {
                return Ok(None);
            }
            let message = format!(
                "api.listen is {}, which other machines can reach, and no tokens are configured; \
                 write `tokens_file: generate` under `api:`, or listen on 127.0.0.1",
                api.listen
            );
            return Err(Fatal::new(CONFIG, message).into());
        };
        let path = match file {
            TokensFile::Path(path) => path.clone(),
            TokensFile::Generate => self.generated_tokens()?,
        };
        Tokens::read(&path)
            .map(Some)
            .map_err(|error| Fatal::new(CONFIG, format!("{:#}", anyhow::Error::new(error))).into())
    }

    /// Where the tokens are.
    pub(crate) fn tokens_path(&self) -> PathBuf {
        match &self.config.api.tokens_file {
            Some(TokensFile::Path(path)) => path.clone(),
            _ => self.config.paths.runtime.join("tokens"),
        }
    }

    /// The file that `tokens_file: generate` stands for, made at the first start.
    fn generated_tokens(&self) -> Result<PathBuf> {
        let path = self.tokens_path();
        if !path.exists() {
            let token = |scope: &str| {
                format!("{scope} {}{}\n", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple())
            };
            let text =
                format!("# Bearer tokens of this orchestratord.\n{}{}", token("control"), token("data"));
            write_private(&path, &text)
                .with_context(|| format!("writing the tokens file {}", path.display()))?;
        }
        Ok(path)
    }
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
    if let Some(parent) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    }
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
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
