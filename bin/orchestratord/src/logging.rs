//! Logs go to stderr: text on a terminal, JSON lines otherwise, `RUST_LOG` decides how much.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use wire::config::{LogConfig, LogFormat};

/// Installs the subscriber. `level` holds where `RUST_LOG` says nothing.
pub fn init(config: &LogConfig, level: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let terminal = std::io::stderr().is_terminal();
    let json = match config.format {
        LogFormat::Auto => !terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let colour = terminal && std::env::var_os("NO_COLOR").is_none();
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colour);
    // A second call, as tests make, keeps the first subscriber.
    let _ = if json { builder.json().try_init() } else { builder.with_target(false).try_init() };
}
