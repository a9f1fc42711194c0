//! What a replica is to run: a pool's configuration, numbered. A reload or a changed configuration makes
//! a new one; a roll-back goes back to the number before.

use std::sync::Arc;
use std::time::Duration;

use wire::config::PoolConfig;

/// What a replica is to run.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// Of two targets with the same number both are the same.
    pub(crate) number: u64,
    pub(crate) pool: Arc<PoolConfig>,
    /// How long generations on the engine that it replaces may go on.
    pub(crate) patience: Duration,
    /// Old and new may run beside each other, if there is memory for both.
    pub(crate) beside: bool,
}

impl Target {
    /// The first one of a pool.
    pub(crate) fn first(pool: Arc<PoolConfig>) -> Self {
        Self { number: 0, pool, patience: Duration::ZERO, beside: true }
    }
}
