//! pool-managerd as a process of its own: configuration, token file, log, signals, exit code.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use config_loader::{ConfigError, Env, Origin};
use daemon::Signals;
use tokio::sync::Notify;
use tracing_subscriber::EnvFilter;
use wire::config::{Config, LogFormat};

use crate::replica::with_causes;
use crate::{App, AppConfig, AppConfigError, StartError, Token, durable, service};

/// Why the daemon ended with an error. Each has an exit code.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The token file cannot be used.
    #[error("cannot use the token file {}", path.display())]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The application cannot be put together.
    #[error(transparent)]
    App(#[from] AppConfigError),
    /// It did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Signals cannot be received, so it could never be stopped in order.
    #[error("cannot listen for signals")]
    Signals(#[source] io::Error),
    /// A second signal came before the end.
    #[error("ended by a second signal; engines that still ran are left for the next start")]
    Impatient,
}

impl DaemonError {
    /// The process's exit code.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_)
            | Self::TokenFile { .. }
            | Self::App(AppConfigError::Pool { .. })
            | Self::Start(StartError::NotLoopback(_)) => 2,
            Self::Start(StartError::Listen { source, .. }) if source.kind() == io::ErrorKind::AddrInUse => 75,
            Self::Start(StartError::Locked { .. }) => 100,
            Self::Impatient => 130,
            Self::App(_) | Self::Start(_) | Self::Signals(_) => 1,
        }
    }

    /// For people: the error with its causes.
    #[must_use]
    pub fn for_people(&self) -> String {
        with_causes(self)
    }
}

/// Runs until SIGTERM, SIGINT or SIGQUIT, and then until everything has ended. A second signal ends it now.
/// SIGHUP reads the configuration again, unless the terminal it was started from has closed: then it ends.
///
/// # Errors
/// See [`DaemonError`].
pub async fn run(config_file: Option<&Path>, env: &Env) -> Result<(), DaemonError> {
    let loaded = config_loader::load(config_file, env)?;
    let config = loaded.config.clone();
    log_to_stderr(config.log.format, env);
    let mut signals = Signals::listen().map_err(DaemonError::Signals)?;
    let mut app = AppConfig::from_config(&config, env, config.pool_managerd.listen)?;
    app.token = token(&config)?;
    let running = App::start(app).await?;
    tracing::info!(addr = %running.addr(), pools = config.pools.len(), "pool-managerd is up");
    service::ready(&running);
    let asked = Notify::new();
    let file = match &loaded.origin {
        Origin::File(path) => Some(path.as_path()),
        Origin::BuiltIn => None,
    };
    tokio::select! {
        () = signals.end(&asked) => {}
        never = service::feed_watchdog(&running) => match never {},
        never = daemon::follow(file, env, &config, &asked, &running) => match never {},
    }
    service::stopping();
    tracing::info!("shutting down; a second signal ends at once");
    tokio::select! {
        () = running.shutdown() => Ok(()),
        () = signals.end(&asked) => Err(DaemonError::Impatient),
    }
}

fn token(config: &Config) -> Result<Token, DaemonError> {
    let default = || config.paths.runtime.join("pool-managerd.token");
    let path = config.pool_managerd.token_file.clone().unwrap_or_else(default);
    let made = durable::private_dir(&config.paths.runtime).and_then(|()| Token::from_file(&path));
    made.map_err(|source| DaemonError::TokenFile { path, source })
}

fn log_to_stderr(format: LogFormat, env: &Env) {
    let directives = env.var("RUST_LOG").and_then(|v| v.to_str()).unwrap_or("info");
    let filter = EnvFilter::try_new(directives).unwrap_or_else(|_| EnvFilter::new("info"));
    let terminal = io::stderr().is_terminal();
    let json = match format {
        LogFormat::Auto => !terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let colour = terminal && env.var("NO_COLOR").is_none();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(colour);
    // Fails only when there is a subscriber already, which then keeps its work.
    let _installed = if json { builder.json().try_init() } else { builder.try_init() };
}
