//! What the environment changes in a parsed configuration, and making every path in it absolute.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use wire::config::{Config, EngineSource, PathsConfig, PoolConfig, TokensFile};

use crate::{ConfigError, Env};

pub(crate) fn apply(config: &mut Config, env: &Env) -> Result<(), ConfigError> {
    if let Some(text) = env.text("ORCHD_ADDR")? {
        config.api.listen = text.parse::<SocketAddr>().map_err(|_| ConfigError::Variable {
            name: "ORCHD_ADDR",
            value: text.to_owned(),
            problem: "is not an address and port, as 127.0.0.1:8080 (a literal address, not a name)"
                .to_owned(),
        })?;
    }
    directories(&mut config.paths, env)?;
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
    config.pools.iter_mut().try_for_each(|pool| pool_paths(pool, env))
}

/// Our own variables beat the file; systemd's directories only replace the built-in default.
fn directories(paths: &mut PathsConfig, env: &Env) -> Result<(), ConfigError> {
    let defaults = PathsConfig::default();
    let systemd = |name: &str| {
        let first = env.var(name).and_then(|list| std::env::split_paths(list).next());
        first.filter(|path| path.is_absolute())
    };
    let pick = |own: &str, set: &Path, default: &Path, service: &str| -> PathBuf {
        match env.var(own) {
            Some(path) => PathBuf::from(path),
            None if set == default => systemd(service).unwrap_or_else(|| set.to_path_buf()),
            None => set.to_path_buf(),
        }
    };
    let runtime = pick("ORCHD_RUNTIME_DIR", &paths.runtime, &defaults.runtime, "RUNTIME_DIRECTORY");
    let cache = pick("LLAMA_ORCH_CACHE", &paths.cache, &defaults.cache, "CACHE_DIRECTORY");
    paths.runtime = env.absolute(&runtime)?;
    paths.cache = env.absolute(&cache)?;
    Ok(())
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
