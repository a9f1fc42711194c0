//! What a journal promises: across a restart, a kill, a full disk and damage.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test helper fails by panicking"
)]

mod damage;
mod events;
mod full_disk;
mod prompts;
mod versions;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::value::RawValue;
use task_log::journal::{self, Admission, JournalError, Opened, Options, Recovered, Space, Unrecorded};
use task_log::{Entry, Journal, LogWriter, TaskLog};
use wire::EngineChunk;
use wire::event::{End, FinishReason, Receipt};

const LIMIT: usize = 1 << 20;

fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).unwrap()
}

fn chunk(text: &str) -> EngineChunk {
    let raw = Some(wire::RawJson::parse("{\"content\":  \"x\"}").unwrap());
    EngineChunk { text: text.to_owned(), tokens: vec![1], raw, ..EngineChunk::default() }
}

fn end() -> End {
    End {
        tokens_in: Some(1),
        tokens_out: 2,
        decode_time_ms: 3,
        finish_reason: FinishReason::Stop,
        receipt: Box::new(Receipt::default()),
        result: None,
    }
}

/// In memory where the machine has such a place: what is tested is not how long a sync takes.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn open(dir: &Path) -> Opened {
    Journal::open(dir, Options::default()).unwrap()
}

fn admit(journal: &Journal, seq: u64) -> Result<(), Unrecorded> {
    let (done, outcome) = mpsc::channel();
    let record = raw(&format!("{{\"task\":{seq}}}"));
    let admission = Admission { seq, record, prompt: format!("PROMPT {seq}").into_bytes() };
    journal.admit(admission, Box::new(move |outcome| done.send(outcome).unwrap()));
    outcome.recv_timeout(Duration::from_secs(20)).unwrap()
}

fn start(journal: &Journal, seq: u64) -> (TaskLog, LogWriter) {
    admit(journal, seq).unwrap();
    journal.log(seq, LIMIT)
}

/// A task that says some words and ends.
fn whole(journal: &Journal, seq: u64, words: &[&str]) -> TaskLog {
    let (log, mut writer) = start(journal, seq);
    words.iter().for_each(|word| assert!(writer.chunk(chunk(word)).is_ok()));
    writer.end(end());
    journal.ended(seq, &log, raw("{\"state\":\"done\"}"));
    log
}

fn shown(entries: &[Entry]) -> Vec<String> {
    entries.iter().map(|entry| serde_json::to_string(entry).unwrap()).collect()
}

fn read(log: &TaskLog) -> Vec<Entry> {
    let mut follower = log.follow(None);
    std::iter::from_fn(|| follower.try_next()).map(|(_, entry)| (*entry).clone()).collect()
}

/// Leaves the processor to what it waits for.
fn until(mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "not within 60 s");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The directory as a killed process leaves it: what was written, without a close.
fn killed(dir: &Path) -> tempfile::TempDir {
    copied(dir, |_| true)
}

fn copied(dir: &Path, wanted: impl Fn(&Path) -> bool) -> tempfile::TempDir {
    let copy = scratch();
    for path in files(dir).into_iter().filter(|path| wanted(path)) {
        let to = copy.path().join(path.strip_prefix(dir).unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(&path, to).unwrap();
    }
    copy
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            files.extend(self::files(&entry.path()))
        } else {
            files.push(entry.path())
        }
    }
    files.sort();
    files
}

fn holds_text(dir: &Path, text: &str) -> bool {
    files(dir).iter().any(|file| fs::read(file).unwrap().windows(text.len()).any(|at| at == text.as_bytes()))
}

/// The event file with the most in it.
fn event_file(dir: &Path) -> PathBuf {
    let files = files(&dir.join("events"));
    files.into_iter().max_by_key(|file| fs::metadata(file).unwrap().len()).unwrap()
}

/// ORCHD-JOURNAL-001, ORCHD-JOURNAL-002
#[test]
fn accepted_running_and_ended_tasks_are_read_back_as_they_were() {
    let dir = scratch();
    // Nothing is committed by itself: a copy of a store in the middle of a commit is none.
    let options = Options { sync_every: Duration::from_secs(3600), ..Options::default() };
    let Opened { journal, tasks, next_seq } = Journal::open(dir.path(), options).unwrap();
    assert!(tasks.is_empty());
    let (waiting, running) = (start(&journal, next_seq), start(&journal, next_seq + 1));
    let (log, mut writer) = running;
    ["a", "", "\r\nb"].iter().for_each(|word| assert!(writer.chunk(chunk(word)).is_ok()));
    let ended = whole(&journal, next_seq + 2, &["c"]);
    until(|| log.entries_len() == 3 && ended.entries_len() == 2);
    for restart in [killed(dir.path()), {
        journal.close();
        killed(dir.path())
    }] {
        let opened = open(restart.path());
        let [one, two, three] = <[Recovered; 3]>::try_from(opened.tasks).unwrap();
        assert_eq!((one.seq, two.seq, three.seq), (next_seq, next_seq + 1, next_seq + 2));
        assert_eq!(opened.next_seq, next_seq + 3);
        assert_eq!((one.record.get(), one.entries.len()), (format!("{{\"task\":{next_seq}}}").as_str(), 0));
        assert_eq!(one.prompt.unwrap(), format!("PROMPT {next_seq}").into_bytes());
        assert_eq!(shown(&two.entries), shown(&read(&log)));
        assert!(one.end.is_none() && two.end.is_none() && two.prompt.is_some());
        assert_eq!(shown(&three.entries), shown(&read(&ended)));
        assert!(three.end.is_some() && three.prompt.is_none());
        // The one that ran goes on where it was.
        let (log, writer) = opened.journal.restore(two.seq, two.entries, LIMIT);
        let mut writer = writer.unwrap();
        assert_eq!(writer.chunk(chunk("d")).unwrap(), Some(2));
        writer.end(end());
        opened.journal.ended(two.seq, &log, raw("null"));
        opened.journal.close();
        let again = open(restart.path());
        assert_eq!(again.tasks[1].entries.len(), 5);
        assert!(again.tasks[1].end.is_some());
        again.journal.close();
    }
    drop((waiting, writer));
}

/// The file that the last process wrote.
fn event_file_of_last_life(dir: &Path) -> PathBuf {
    files(&dir.join("events")).pop().unwrap()
}

/// ORCHD-JOURNAL-005
#[test]
fn a_second_process_is_refused() {
    let dir = scratch();
    let opened = open(dir.path());
    let error = Journal::open(dir.path(), Options::default()).unwrap_err();
    assert!(matches!(error, JournalError::InUse { .. }), "{error}");
    opened.journal.close();
    open(dir.path()).journal.close();
}

/// ORCHD-JOURNAL-005
#[test]
fn nobody_else_may_read_any_of_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = scratch();
    let journal_dir = dir.path().join("journal");
    let opened = open(&journal_dir);
    drop(start(&opened.journal, opened.next_seq));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert!(files(&journal_dir).len() >= 3);
    files(&journal_dir).iter().for_each(|file| assert_eq!(mode(file), 0o600, "{}", file.display()));
    for dir in [journal_dir.clone(), journal_dir.join("events"), journal_dir.join("prompts")] {
        assert_eq!(mode(&dir), 0o700, "{}", dir.display());
    }
    opened.journal.close();
}
