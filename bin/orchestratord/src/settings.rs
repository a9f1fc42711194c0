//! Everything a start of orchestratord depends on, read once: the configuration file, the
//! environment over it, and the development shim.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use config_loader::{Env, Origin};
use wire::config::{Config, TokensFile};
use wire::{Handoff, PoolId, ReplicaId};

use crate::exit::{CONFIG, Fatal, SERVE};
use crate::tokens::Tokens;

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
}

/// What a client of the configured orchestratord sends, and where that comes from.
#[derive(Debug, Clone, Default)]
pub(crate) struct Access {
    /// The bearer token.
    pub(crate) token: Option<String>,
    /// The tokens file that the configuration names.
    pub(crate) file: Option<PathBuf>,
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
        Ok(Self { config, env, shim, file, command: SERVE })
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

    /// What `run` sends to the orchestratord of this configuration: `LLAMA_ORCH_TOKEN`, else what the
    /// tokens file says.
    pub(crate) fn access(&self) -> Result<Access> {
        let given = self.env.text("LLAMA_ORCH_TOKEN");
        let given = given.map_err(|error| Fatal::new(CONFIG, error.to_string()))?.map(str::to_owned);
        let file = self.config.api.tokens_file.as_ref().map(|_| self.tokens_path());
        // A file that cannot be read is somebody else's; the daemon's answer will say what is missing.
        let token = given.or_else(|| {
            let text = std::fs::read_to_string(file.as_ref()?).ok()?;
            first_token(&text, "data").or_else(|| first_token(&text, "control"))
        });
        Ok(Access { token, file })
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
            write_private(&path, &text).map_err(|error| self.unusable_runtime(&path, &error))?;
        }
        Ok(path)
    }
}

fn first_token(text: &str, scope: &str) -> Option<String> {
    text.lines().find_map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
        [found, token] if found == scope => Some(token.to_owned()),
        _ => None,
    })
}

/// An error and its causes in one line, for people.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_takes_the_data_token_and_the_variable_wins() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        std::fs::write(&path, "# ours\ncontrol cccccccccccccccc\ndata dddddddddddddddd\n").unwrap();
        let mut config = Config::default();
        config.api.tokens_file = Some(TokensFile::Path(path.clone()));
        let access = |variables: &[(&str, &str)]| {
            let env = Env::new(dir.path(), variables.iter().copied());
            let config = config.clone();
            Settings { config, env, shim: None, file: None, command: SERVE }.access().unwrap()
        };
        assert_eq!(access(&[]).token.as_deref(), Some("dddddddddddddddd"));
        assert_eq!(access(&[]).file.as_ref(), Some(&path));
        assert_eq!(access(&[("LLAMA_ORCH_TOKEN", "mine")]).token.as_deref(), Some("mine"));
        std::fs::write(&path, "control cccccccccccccccc\n").unwrap();
        assert_eq!(access(&[]).token.as_deref(), Some("cccccccccccccccc"));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(access(&[]).token, None);
    }
}
