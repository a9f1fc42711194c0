//! Why a journal cannot be used.

use std::io;
use std::path::PathBuf;

/// Why a journal could not be opened. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// A file or directory could not be made, read or written.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process has it.
    #[error("the journal {} is in use by another process; stop that one first", path.display())]
    InUse {
        /// The store's file.
        path: PathBuf,
    },
    /// The store of tasks cannot be read.
    #[error("the store of tasks {} is damaged; {}", path.display(), advice(path))]
    Store {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<redb::Error>,
    },
    /// A later version wrote it.
    #[error("{} was written by a later version ({found}; this program reads 1 to {known}); use that version, or {}", path.display(), aside(path))]
    Version {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: u64,
        /// What is known here.
        known: u64,
    },
    /// A file is not what was written, in a part that was on disk.
    #[error("{} is damaged at byte {offset}: {what}; {}", path.display(), advice(path))]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// Events of a task that had ended are missing.
    #[error("of task number {seq} {expected} events were written to {} and {found} are there; {}", path.display(), advice(path))]
    Missing {
        /// The directory of event files.
        path: PathBuf,
        /// The task's number.
        seq: u64,
        /// Events there were.
        expected: u64,
        /// Events that can be read.
        found: u64,
    },
}

fn advice(path: &std::path::Path) -> String {
    format!(
        "`orchestratord journal check` shows all damage and `orchestratord journal repair` keeps what can be \
         read; or {}",
        aside(path)
    )
}

fn aside(path: &std::path::Path) -> String {
    let in_journal = path.ancestors().find(|above| above.file_name().is_some_and(|name| name == "journal"));
    let journal = in_journal.or(path.parent()).unwrap_or(path).display();
    format!("set the journal aside, with every task in it: mv {journal} {journal}.damaged")
}

/// An admission that could not be recorded: the disk is full or failing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the journal cannot be written (the daemon's log says why), so no task is accepted until it can be")]
pub struct Unrecorded;
