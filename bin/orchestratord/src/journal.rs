//! The journal of the runtime directory: opening it, and the commands that check and mend it.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use task_log::Journal;
use task_log::journal::{self, JournalError, Opened, Options};

use crate::cli::JournalCommand;
use crate::exit::{CONFIG, Fatal, LOCKED};
use crate::settings::{Settings, with_causes};

/// Damage was found.
const DAMAGED: u8 = 1;

/// Opens it; `None` when another process has it.
pub(crate) async fn open(settings: &Settings) -> Result<Option<Opened>> {
    let dir = dir(settings);
    let path = dir.clone();
    let opened = tokio::task::spawn_blocking(move || Journal::open(&path, Options::default()));
    match opened.await.context("opening the journal")? {
        Ok(opened) => Ok(Some(opened)),
        Err(JournalError::InUse { .. }) => Ok(None),
        Err(JournalError::Io { path, source, .. }) => Err(settings.unusable_runtime(&path, &source).into()),
        Err(error) => Err(Fatal::new(CONFIG, with_causes(&error)).into()),
    }
}

/// Somebody else has it, who does not have the runtime directory.
pub(crate) fn in_use(settings: &Settings) -> Fatal {
    let message = format!(
        "the journal {} is in use by another orchestratord; stop that one, or choose another runtime \
         directory with ORCHD_RUNTIME_DIR or paths.runtime",
        dir(settings).display()
    );
    Fatal::new(LOCKED, message)
}

/// `orchestratord journal …`.
pub fn run(config: Option<&Path>, command: &JournalCommand) -> Result<()> {
    let settings = Settings::read(config)?;
    let dir = dir(&settings);
    let mut out = std::io::stdout().lock();
    let done = match command {
        JournalCommand::Check => check(&dir, &mut out),
        JournalCommand::Repair => repair(&dir, &mut out),
    };
    done.map_err(|error| match error {
        JournalError::InUse { .. } => in_use(&settings).into(),
        error => Fatal::new(CONFIG, with_causes(&error)).into(),
    })
    .and_then(|problems| match problems {
        0 => Ok(()),
        n => {
            let places = if n == 1 { "place" } else { "places" };
            let message = format!(
                "the journal is damaged in {n} {places}; `orchestratord journal repair` keeps what can be read"
            );
            Err(Fatal::new(DAMAGED, message).into())
        }
    })
}

fn check(dir: &Path, out: &mut impl Write) -> Result<usize, JournalError> {
    let found = journal::check(dir)?;
    let _ = writeln!(
        out,
        "{}: {} tasks wait or run, {} have ended, {} event files",
        dir.display(),
        found.live,
        found.ended,
        found.files
    );
    for line in found.problems.iter().chain(&found.notes) {
        let _ = writeln!(out, "{line}");
    }
    Ok(found.problems.len())
}

fn repair(dir: &Path, out: &mut impl Write) -> Result<usize, JournalError> {
    let done = journal::repair(dir)?;
    if done.is_empty() {
        let _ = writeln!(out, "{}: nothing to repair", dir.display());
    }
    for line in done {
        let _ = writeln!(out, "{line}");
    }
    Ok(0)
}

fn dir(settings: &Settings) -> PathBuf {
    settings.config.paths.runtime.join("journal")
}
