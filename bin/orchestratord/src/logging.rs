//! Logs go to stderr: text on a terminal, JSON lines otherwise, `RUST_LOG` decides how much. Who waits for one
//! answer reads text, wherever stderr goes: what there is to warn of stands among lines for people.
//!
//! What orchestratord tells people itself, with the remedy, is left out of the log: pool-managerd
//! runs in the same process, and its record of a failure would only say the same once more.

use std::io::IsTerminal;

use tracing::{Level, Metadata};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};
use wire::config::{LogConfig, LogFormat};

/// Who reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// Of a daemon's log: everything that happens.
    Daemon,
    /// Somebody who waits for one answer.
    Asker,
}

/// The form of the log, for those who write beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Installs the subscriber.
pub fn init(config: &LogConfig, reader: Reader) -> Form {
    let (level, told) = match reader {
        Reader::Daemon => ("info", Level::ERROR),
        Reader::Asker => ("warn", Level::WARN),
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let terminal = std::io::stderr().is_terminal();
    let form = match config.format {
        LogFormat::Auto if terminal || reader == Reader::Asker => Form::Text,
        LogFormat::Auto | LogFormat::Json => Form::Json,
        LogFormat::Text => Form::Text,
    };
    let colour = terminal && std::env::var_os("NO_COLOR").is_none();
    // With internal errors on, a log line to a closed terminal would be a panic.
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(colour).log_internal_errors(false);
    let untold = filter_fn(move |event| !is_loss(event) || *event.level() > told);
    let lines = match form {
        Form::Json => lines.json().with_filter(untold).boxed(),
        Form::Text if reader == Reader::Asker => {
            lines.with_target(false).without_time().with_filter(untold).boxed()
        }
        Form::Text => lines.with_target(false).with_filter(untold).boxed(),
    };
    // A second call, as tests make, keeps the first subscriber.
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
    form
}

/// A replica was lost or cannot run: the view of its pool says so too, with more.
fn is_loss(event: &Metadata<'_>) -> bool {
    event.target().starts_with("pool_managerd::replica") && event.fields().field("cause").is_some()
}
