//! What the environment changes in a parsed configuration, and making every path in it absolute.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::Value;
use wire::config::{Config, EngineSource, OnExit, PathsConfig, PoolConfig, TokensFile};

use crate::{ConfigError, Env};

/// A value that a variable of the environment decided.
pub(crate) struct Applied {
    /// Dotted path.
    pub(crate) key: String,
    /// The variable's name.
    pub(crate) variable: &'static str,
}

/// What an end does with the engines of pools that do not say so themselves.
const ON_EXIT: &str = "LLAMA_ORCH_ON_EXIT";

/// Lays the environment over `config` and makes its paths absolute; answers which values it decided.
/// `written` is what the file says, where there is one.
pub(crate) fn apply(
    config: &mut Config,
    written: Option<&Value>,
    env: &Env,
) -> Result<Vec<Applied>, ConfigError> {
    let mut applied = Vec::new();
    if let Some(text) = env.text("ORCHD_ADDR")? {
        config.api.listen = text.parse::<SocketAddr>().map_err(|_| ConfigError::Variable {
            name: "ORCHD_ADDR",
            value: text.to_owned(),
            problem: "is not an address and port, as 127.0.0.1:8080 (a literal address, not a name)"
                .to_owned(),
        })?;
        applied.push(Applied { key: "api.listen".to_owned(), variable: "ORCHD_ADDR" });
    }
    applied.extend(on_exit(&mut config.pools, written, env)?);
    applied.extend(directories(&mut config.paths, env)?);
    if let Some(TokensFile::Path(path)) = &mut config.api.tokens_file {
        *path = env.absolute(path)?;
    }
    if let Some(tls) = &mut config.api.tls {
        tls.cert = env.absolute(&tls.cert)?;
        tls.key = env.absolute(&tls.key)?;
    }
    if let Some(path) = &mut config.pool_managerd.token_file {
        *path = env.absolute(path)?;
    }
    config.pools.iter_mut().try_for_each(|pool| pool_paths(pool, env))?;
    Ok(applied)
}

/// Our own variables beat the file; systemd's directories only replace the built-in default.
fn directories(paths: &mut PathsConfig, env: &Env) -> Result<Vec<Applied>, ConfigError> {
    let defaults = PathsConfig::default();
    let directories = [
        ("paths.runtime", &mut paths.runtime, defaults.runtime, "ORCHD_RUNTIME_DIR", "RUNTIME_DIRECTORY"),
        ("paths.cache", &mut paths.cache, defaults.cache, "LLAMA_ORCH_CACHE", "CACHE_DIRECTORY"),
    ];
    let mut applied = Vec::new();
    for (key, directory, default, own, service) in directories {
        let from_service = || {
            let first = env.var(service).and_then(|list| std::env::split_paths(list).next());
            first.filter(|path| path.is_absolute() && *directory == default).map(|path| (service, path))
        };
        let set = env.var(own).map(|path| (own, PathBuf::from(path))).or_else(from_service);
        if let Some((variable, path)) = set {
            applied.push(Applied { key: key.to_owned(), variable });
            *directory = path;
        }
        *directory = env.absolute(directory)?;
    }
    Ok(applied)
}

/// A service's unit keeps engines over an upgrade without the file having to say so; what a pool says
/// itself holds.
fn on_exit(
    pools: &mut [PoolConfig],
    written: Option<&Value>,
    env: &Env,
) -> Result<Vec<Applied>, ConfigError> {
    let Some(text) = env.text(ON_EXIT)? else { return Ok(Vec::new()) };
    let on_exit = match text {
        "stop" => OnExit::Stop,
        "keep" => OnExit::Keep,
        other => {
            return Err(ConfigError::Variable {
                name: ON_EXIT,
                value: other.to_owned(),
                problem: "is neither stop nor keep".to_owned(),
            });
        }
    };
    let says = |pool: usize| written.is_some_and(|file| file["pools"][pool].get("on_exit").is_some());
    let silent = pools.iter_mut().enumerate().filter(|(nth, _)| !says(*nth));
    Ok(silent
        .map(|(nth, pool)| {
            pool.on_exit = on_exit;
            Applied { key: format!("pools[{nth}].on_exit"), variable: ON_EXIT }
        })
        .collect())
}

fn pool_paths(pool: &mut PoolConfig, env: &Env) -> Result<(), ConfigError> {
    // Everything with another scheme is the model provisioner's to judge, unknown ones included.
    let scheme = pool.model.split('/').next().and_then(|head| head.split_once(':')).map(|(scheme, _)| scheme);
    if scheme.is_none_or(|scheme| scheme == "file") {
        let path = pool.model.strip_prefix("file:").unwrap_or(&pool.model);
        let path = path.strip_prefix("//").map_or(path, |absolute| absolute);
        pool.model = format!("file:{}", env.absolute(Path::new(path))?.display());
    }
    for source in &mut pool.provisioning.sources {
        if let EngineSource::Path(source) = source {
            source.binary = env.absolute(&source.binary)?;
        }
    }
    Ok(())
}
