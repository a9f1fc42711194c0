//! From the machine's configuration to an [`AppConfig`] with the real engine-provisioner.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use config_loader::Env;
use wire::config::Config;

use crate::{AppConfig, EngineProvisioning, InheritedEnv, Timings, Token};

/// The parts could not be put together.
#[derive(Debug, thiserror::Error)]
pub enum AppConfigError {
    /// No randomness for the token.
    #[error("cannot make a random token")]
    Token(#[source] io::Error),
}

impl AppConfig {
    /// For the pools of a loaded configuration (its paths absolute), with a random token.
    ///
    /// # Errors
    /// See [`AppConfigError`].
    pub fn from_config(config: &Config, env: &Env, listen: SocketAddr) -> Result<Self, AppConfigError> {
        Ok(Self {
            runtime_dir: config.paths.runtime.clone(),
            pools: config.pools.clone(),
            listen,
            token: Token::generate().map_err(AppConfigError::Token)?,
            preparer: Arc::new(EngineProvisioning::new(&config.paths.cache, env)),
            inherited: InheritedEnv::pick(env.iter()),
            timings: Timings::default(),
        })
    }
}
