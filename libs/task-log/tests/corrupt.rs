//! A short journal with every byte of its events and prompts changed, one after the other: a start never
//! panics, never hands out what was not written, and after a repair nothing is missing but what the byte was
//! part of.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test helper fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::value::RawValue;
use support::{HEAD, LIMIT, RECORD, begin, files, open, say, scratch};
use task_log::journal::{self, Opened, Options, Recovered};
use task_log::{Entry, Journal, LogWriter};
use wire::ErrorCode;
use wire::event::StreamError;

/// A task as it is read back: its prompt and its events, and whether it had ended.
type Task = (Option<Vec<u8>>, Vec<String>, bool);

fn error() -> StreamError {
    let message = "over".to_owned();
    let (retriable, retry_after_ms, hint, tokens_sent) = (true, None, None, 0);
    StreamError { code: ErrorCode::EngineLost, message, retriable, retry_after_ms, hint, tokens_sent }
}

/// One task that has ended, one that ran in two processes, one that waits.
fn short(dir: &Path) {
    let Opened { journal, .. } = open(dir);
    let (log, mut writer) = begin(&journal, 1);
    ["one", "two"].iter().for_each(|word| say(&mut writer, word));
    writer.error(error());
    journal.ended(1, &log, RawValue::NULL.to_owned());
    let (_, mut runs) = begin(&journal, 2);
    let (_, waits) = begin(&journal, 3);
    say(&mut runs, "three");
    journal.close();
    [runs, waits].into_iter().for_each(LogWriter::discard);
    let Opened { journal, tasks, .. } = open(dir);
    let runs = tasks.into_iter().find(|task| task.seq == 2).unwrap();
    let (_, writer) = journal.restore(2, runs.entries, LIMIT);
    let mut writer = writer.unwrap();
    say(&mut writer, "four");
    journal.close();
    writer.discard();
}

fn copy(from: &Path) -> tempfile::TempDir {
    let copy = scratch();
    for file in files(from) {
        let to = copy.path().join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(&file, to).unwrap();
    }
    copy
}

/// A copy in which one bit of a byte of a file is another.
fn damaged(sound: &Path, name: &Path, bytes: &[u8], byte: usize) -> tempfile::TempDir {
    let copy = copy(sound);
    let mut changed = bytes.to_vec();
    changed[byte] ^= 1 << (byte % 8);
    fs::write(copy.path().join(name), changed).unwrap();
    copy
}

fn tasks(opened: Opened) -> BTreeMap<u64, Task> {
    let shown = |entry: &Entry| serde_json::to_string(entry).unwrap();
    let task = |task: Recovered| {
        (task.seq, (task.prompt, task.entries.iter().map(shown).collect(), task.end.is_some()))
    };
    let tasks = opened.tasks.into_iter().map(task).collect();
    opened.journal.close();
    tasks
}

/// The task and the place of the event whose record a byte is part of.
fn event_at(bytes: &[u8], byte: usize) -> Option<(u64, u64)> {
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let mut at = HEAD;
    while at < bytes.len() {
        let length = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap()) as usize;
        let body = at + RECORD;
        at = body + length;
        if byte < at {
            return (byte >= HEAD && bytes[body] == 1).then(|| (number(body + 1), number(body + 9)));
        }
    }
    None
}

/// ORCHD-JOURNAL-007
#[test]
fn a_byte_of_an_event_costs_what_is_behind_it_in_its_task_and_nothing_else() {
    let sound = scratch();
    short(sound.path());
    let whole = tasks(open(copy(sound.path()).path()));
    let count: Vec<usize> = whole.values().map(|(_, events, _)| events.len()).collect();
    assert_eq!(count, [3, 2, 0]);
    let (mut stopped, mut lost) = (0, 0);
    for file in files(&sound.path().join("events")) {
        let bytes = fs::read(&file).unwrap();
        let name = file.strip_prefix(sound.path()).unwrap();
        for byte in 0..bytes.len() {
            let what = format!("byte {byte} of {}", name.display());
            let damaged = damaged(sound.path(), name, &bytes, byte);
            let found = match Journal::open(damaged.path(), Options::default()) {
                Ok(opened) => tasks(opened),
                Err(error) => {
                    stopped += 1;
                    assert!(error.to_string().contains(name.to_str().unwrap()), "{what}: {error}");
                    journal::repair(damaged.path()).unwrap();
                    tasks(open(damaged.path()))
                }
            };
            let hit = event_at(&bytes, byte);
            for (seq, (prompt, events, ended)) in &whole {
                let (prompt_now, events_now, ended_now) = &found[seq];
                assert_eq!((prompt_now, ended_now), (prompt, ended), "{what}: task {seq}");
                match hit.filter(|(of, _)| of == seq) {
                    None => assert_eq!(events_now, events, "{what}: task {seq}"),
                    Some((_, at)) => {
                        lost += 1;
                        let at = usize::try_from(at).unwrap();
                        assert_eq!(events_now[..at], events[..at], "{what}: task {seq}");
                        let interrupted = |event: &String| event.contains("INTERRUPTED");
                        assert_eq!(events_now.len() - at, usize::from(*ended), "{what}: {events_now:?}");
                        assert!(events_now[at..].iter().all(interrupted), "{what}: {events_now:?}");
                    }
                }
            }
        }
    }
    assert!(stopped > 100 && lost > 100, "{stopped} starts were stopped and {lost} bytes cost events");
}

/// ORCHD-JOURNAL-007: what is behind the gap is still in the files when the task goes on in front of it.
#[test]
fn what_was_said_behind_a_lost_event_does_not_come_back_behind_what_is_said_in_its_place() {
    let dir = scratch();
    short(dir.path());
    let holds = |file: &PathBuf| fs::read(file).unwrap().windows(5).any(|at| at == b"three");
    let file = files(&dir.path().join("events")).into_iter().find(holds).unwrap();
    let mut bytes = fs::read(&file).unwrap();
    let at = bytes.windows(5).position(|at| at == b"three").unwrap();
    bytes[at] ^= 1;
    fs::write(&file, &bytes).unwrap();
    journal::repair(dir.path()).unwrap();
    let Opened { journal, tasks: found, .. } = open(dir.path());
    let runs = found.into_iter().find(|task| task.seq == 2).unwrap();
    assert!(runs.entries.is_empty());
    let (_, writer) = journal.restore(2, runs.entries, LIMIT);
    let mut writer = writer.unwrap();
    say(&mut writer, "anew");
    journal.close();
    writer.discard();
    assert!(journal::check(dir.path()).unwrap().problems.is_empty());
    let (_, events, _) = &tasks(open(dir.path()))[&2];
    assert!(events.len() == 1 && events[0].contains("anew"), "{events:?}");
}

/// ORCHD-JOURNAL-007
#[test]
fn a_byte_of_a_prompt_costs_that_prompt_and_it_is_never_handed_out() {
    let sound = scratch();
    short(sound.path());
    let whole = tasks(open(copy(sound.path()).path()));
    let mut lost = 0;
    for file in files(&sound.path().join("prompts")) {
        let bytes = fs::read(&file).unwrap();
        let name = file.strip_prefix(sound.path()).unwrap();
        for byte in 0..bytes.len() {
            let what = format!("byte {byte} of {}", name.display());
            let damaged = damaged(sound.path(), name, &bytes, byte);
            let found = tasks(open(damaged.path()));
            let mut of_this = 0;
            for (seq, (prompt, events, ended)) in &whole {
                let (prompt_now, events_now, ended_now) = &found[seq];
                assert_eq!((events_now, ended_now), (events, ended), "{what}: task {seq}");
                if prompt_now != prompt {
                    assert_eq!(*prompt_now, None, "{what}: task {seq}");
                    of_this += 1;
                }
            }
            assert!(of_this <= 1, "{what}");
            lost += of_this;
        }
    }
    assert_eq!(lost, "PROMPT 2PROMPT 3".len(), "each byte of each prompt that is still needed");
}
