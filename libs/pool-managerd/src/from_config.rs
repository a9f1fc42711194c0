//! From the machine's configuration to an [`AppConfig`] with the real engine-provisioner.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use config_loader::Env;
use devices::{System, Way};
use provisioners_engine_provisioner::{EnsureError, check_pool};
use wire::PoolId;
use wire::config::{Config, PoolConfig};

use crate::replica::with_causes;
use crate::{AppConfig, EngineProvisioning, InheritedEnv, Timings, Token};

/// The parts could not be put together.
#[derive(Debug, thiserror::Error)]
pub enum AppConfigError {
    /// A pool cannot work on any machine.
    #[error("pools[{index}] ({pool}): {problem}")]
    Pool {
        /// Its place in the configuration.
        index: usize,
        /// The pool.
        pool: PoolId,
        /// The key, what is wrong with it, and what to write instead.
        problem: String,
    },
    /// No randomness for the token.
    #[error("cannot make a random token")]
    Token(#[source] io::Error),
}

impl AppConfig {
    /// For the pools of a loaded configuration (its paths absolute), with a random token and no
    /// `holder`. A pool that could not be provisioned anywhere is refused here.
    ///
    /// # Errors
    /// See [`AppConfigError`].
    pub fn from_config(config: &Config, env: &Env, listen: SocketAddr) -> Result<Self, AppConfigError> {
        check_pools(config)?;
        // One for both: a tool that hangs is waited for once.
        let cards = System::new(env.var("PATH"), Way::from_variable(env.var("LLAMA_ORCH_DEVICES")));
        let preparer = EngineProvisioning::new(&config.paths.cache, &config.models, env);
        Ok(Self {
            runtime_dir: config.paths.runtime.clone(),
            pools: config.pools.clone(),
            holder: None,
            listen,
            token: Token::generate().map_err(AppConfigError::Token)?,
            preparer: Arc::new(preparer.with_cards(cards.clone())),
            inherited: InheritedEnv::pick(env.iter()),
            memory: crate::available_memory,
            self_tests: config.paths.cache.join("self-tests"),
            cards: Arc::new(cards),
            loading_at_once: config.pool_managerd.loading_at_once,
            timings: Timings::default(),
        })
    }
}

/// Refuses a configuration with a pool that could not be provisioned anywhere.
pub(crate) fn check_pools(config: &Config) -> Result<(), AppConfigError> {
    config.pools.iter().enumerate().try_for_each(check)
}

fn check((index, pool): (usize, &PoolConfig)) -> Result<(), AppConfigError> {
    check_pool(pool).map_err(|error| {
        let problem = match error {
            EnsureError::Config { problem, .. } => problem,
            other => with_causes(&other),
        };
        AppConfigError::Pool { index, pool: pool.id.clone(), problem }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_that_cannot_work_is_named_with_its_place_and_key() {
        let env = Env::new("/", [("PATH", "/bin")]);
        let mut config =
            Config { pools: vec![PoolConfig::haiku(), PoolConfig::haiku()], ..Config::default() };
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        config.pool_managerd.loading_at_once = 7;
        assert_eq!(AppConfig::from_config(&config, &env, listen).unwrap().loading_at_once, 7);
        config.pools[1].flags = vec!["--bogus".to_owned()];
        let refused = AppConfig::from_config(&config, &env, listen).err().unwrap().to_string();
        assert!(refused.starts_with("pools[1] (haiku): flags: --bogus"), "{refused}");
    }
}
