//! What tests of a journal's files have in common.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test program uses a part of it, and fails by panicking"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::value::RawValue;
use task_log::journal::{Admission, Opened, Options};
use task_log::{Journal, LogWriter, TaskLog};
use wire::EngineChunk;

/// What a task may say.
pub(crate) const LIMIT: usize = 1 << 20;
/// Of a file of events.
pub(crate) const HEAD: usize = 16;
/// Length, checksum and first four bytes of a record.
pub(crate) const RECORD: usize = 12;

pub(crate) fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// All files below, in order.
pub(crate) fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect();
    files.sort();
    files
}

pub(crate) fn open(dir: &Path) -> Opened {
    Journal::open(dir, Options::default()).unwrap()
}

/// A task is accepted.
pub(crate) fn begin(journal: &Journal, seq: u64) -> (TaskLog, LogWriter) {
    let (done, outcome) = mpsc::channel();
    let record = RawValue::from_string("{}".to_owned()).unwrap();
    let admission = Admission { seq, record, prompt: format!("PROMPT {seq}").into_bytes() };
    journal.admit(admission, Box::new(move |outcome| done.send(outcome).unwrap()));
    outcome.recv_timeout(Duration::from_secs(60)).unwrap().unwrap();
    journal.log(seq, LIMIT)
}

/// A token.
pub(crate) fn say(writer: &mut LogWriter, text: &str) {
    let chunk = EngineChunk { text: text.to_owned(), tokens: vec![1], ..EngineChunk::default() };
    writer.chunk(chunk).unwrap();
}
