//! Positions and journals that nobody meant to write: see `mutate`.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::value::RawValue;
use support::{LIMIT, files, scratch};
use task_log::journal::{self, Admission, Opened, Options};
use task_log::{Journal, LogWriter, Position, TaskLog};
use wire::EngineChunk;
use wire::event::{Started, StreamError};
use wire::{ErrorCode, PoolId, ReplicaId};

fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).unwrap()
}

/// A beginning, some words and, of one that is over, an end.
fn say(mut writer: LogWriter, words: &[&str], over: bool) -> Option<LogWriter> {
    writer.started(Started {
        queue_ms: 1,
        pool_id: PoolId::try_new("p").unwrap(),
        replica_id: ReplicaId::nth(0),
        engine_version: "v".to_owned(),
        model: "m".to_owned(),
        model_digest: String::new(),
    });
    for word in words {
        let chunk = EngineChunk { text: (*word).to_owned(), tokens: vec![1], ..EngineChunk::default() };
        assert!(writer.chunk(chunk).is_ok());
    }
    if !over {
        return Some(writer);
    }
    writer.error(StreamError {
        code: ErrorCode::EngineLost,
        message: "it is gone".to_owned(),
        retriable: true,
        retry_after_ms: None,
        hint: None,
        tokens_sent: 0,
    });
    None
}

/// STREAM-002, STREAM-009
#[test]
fn a_position_is_a_number_of_an_event_or_refused_and_a_reader_goes_on_right_behind_it() {
    let (log, writer) = TaskLog::new(LIMIT);
    let _open = say(writer, &["a", "b", "", "c"], false);
    let seeds = [
        "0",
        "4",
        "5",
        "18446744073709551615",
        "18446744073709551616",
        "+1",
        "-1",
        "007",
        "3-4",
        "0-4",
        "٣",
        " 1",
        "1e3",
        "",
    ];
    let corpus: Vec<Vec<u8>> = seeds.iter().map(|seed| seed.as_bytes().to_vec()).collect();
    let count = mutate::rounds("last-event-id", &corpus, 10_000, |input, _| {
        // What is no text is refused before it gets here.
        let Ok(text) = std::str::from_utf8(input) else { return };
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse::<u64>().ok().filter(|_| digits);
        let position = text.parse::<Position>();
        if let Some(later) = position.as_ref().ok().filter(|_| text.contains('-')) {
            // No second process has ever said anything of it.
            assert!(!log.gave_out(*later), "{text:?}");
            return;
        }
        assert_eq!(position.is_ok(), number.is_some(), "{text:?}");
        let (Ok(position), Some(number)) = (position, number) else { return };
        assert_eq!(position.to_string(), number.to_string());
        assert_eq!(log.gave_out(position), number < log.entries_len(), "{number}");
        let mut reader = log.follow(Some(position));
        let read = std::iter::from_fn(|| reader.try_next()).count() as u64;
        assert_eq!(read, log.entries_len().saturating_sub(number.saturating_add(1)), "behind {number}");
    });
    assert!(count > 1_000, "only {count} inputs");
}

/// A short journal: one task that has ended, one that runs, one that waits.
fn short(dir: &Path) {
    let Opened { journal, next_seq, .. } = Journal::open(dir, Options::default()).unwrap();
    let mut open = Vec::new();
    for n in 0..3 {
        let seq = next_seq + n;
        let (done, outcome) = mpsc::channel();
        let record = raw(&format!("{{\"task\":{seq}}}"));
        let admission = Admission { seq, record, prompt: format!("PROMPT {seq}").into_bytes() };
        journal.admit(admission, Box::new(move |outcome| done.send(outcome).unwrap()));
        outcome.recv_timeout(Duration::from_secs(20)).unwrap().unwrap();
        let (log, writer) = journal.log(seq, LIMIT);
        match n {
            0 => {
                say(writer, &["one", "two"], true);
                journal.ended(seq, &log, raw("{\"state\":\"failed\"}"));
            }
            1 => open.extend(say(writer, &["three"], false)),
            _ => open.push(writer),
        }
    }
    journal.close();
    open.into_iter().for_each(LogWriter::discard);
}

/// ORCHD-JOURNAL-006, ORCHD-JOURNAL-007
#[test]
fn no_damage_to_a_journal_is_more_than_an_error_and_repair_always_leaves_one_that_opens() {
    let sound = scratch();
    short(sound.path());
    let names: Vec<PathBuf> =
        files(sound.path()).iter().map(|file| file.strip_prefix(sound.path()).unwrap().to_owned()).collect();
    // The store is a library's; it has a test of its own.
    let ours: Vec<&PathBuf> =
        names.iter().filter(|name| name.extension().is_some_and(|kind| kind != "redb")).collect();
    let corpus: Vec<Vec<u8>> = ours.iter().map(|name| fs::read(sound.path().join(name)).unwrap()).collect();
    assert!(corpus.iter().filter(|bytes| !bytes.is_empty()).count() >= 2, "{ours:?}");
    let (mut opened, mut repaired) = (0_u64, 0_u64);
    mutate::campaign("journal", &corpus, |input, dice| {
        let copy = scratch();
        for name in &names {
            let to = copy.path().join(name);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(sound.path().join(name), to).unwrap();
        }
        let damaged = ours[dice.below(ours.len())];
        fs::write(copy.path().join(damaged), input).unwrap();
        let problems = journal::check(copy.path()).map(|check| check.problems.len());
        match Journal::open(copy.path(), Options::default()) {
            Ok(Opened { journal, tasks, .. }) => {
                assert!(tasks.len() <= 3);
                drop(tasks);
                journal.close();
                opened += 1;
            }
            Err(error) => {
                assert!(problems.is_err() || problems.is_ok_and(|n| n > 0), "a check says so, too: {error}");
                journal::repair(copy.path()).unwrap();
                let again = Journal::open(copy.path(), Options::default()).unwrap();
                again.journal.close();
                repaired += 1;
            }
        }
    });
    assert!(opened + repaired > 5, "{opened} opened and {repaired} were repaired");
}

/// ORCHD-JOURNAL-007. The store is redb's, which is asked for more than an error here and there.
#[test]
fn no_damage_to_the_store_of_tasks_is_more_than_an_error_that_names_it() {
    let sound = scratch();
    short(sound.path());
    let store = sound.path().join("tasks.redb");
    let bytes = fs::read(&store).unwrap();
    let written: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
    let (mut opened, mut refused) = (0_u64, 0_u64);
    mutate::campaign("store", &[b"store".to_vec()], |_, dice| {
        let mut damaged = bytes.clone();
        for _ in 0..=dice.below(4) {
            let at = written[dice.below(written.len())];
            let end = (at + 1 + dice.below(64)).min(bytes.len());
            match dice.below(6) {
                0 => damaged[at] ^= 1 << dice.below(8),
                1 => damaged[at] = dice.number() as u8,
                2 => damaged[at..end].fill(0),
                3 => damaged[at..end].fill(0xff),
                4 => (at..end).for_each(|at| damaged[at] = dice.number() as u8),
                _ if dice.below(8) == 0 => damaged.truncate(at),
                _ => damaged[at] = bytes[written[dice.below(written.len())]],
            }
            if damaged.len() < bytes.len() {
                break;
            }
        }
        let copy = scratch();
        for file in files(sound.path()) {
            let to = copy.path().join(file.strip_prefix(sound.path()).unwrap());
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(&file, &to).unwrap();
        }
        let store = copy.path().join("tasks.redb");
        fs::write(&store, &damaged).unwrap();
        let check = journal::check(copy.path()).unwrap();
        let named = |text: &String| text.contains("tasks.redb") || text.contains("events");
        assert!(check.problems.iter().all(named), "{check:?}");
        match Journal::open(copy.path(), Options::default()) {
            Ok(Opened { journal, tasks, .. }) => {
                drop(tasks);
                journal.close();
                opened += 1;
            }
            Err(error) => {
                assert!(!check.problems.is_empty(), "a check says so, too: {error}");
                assert!(named(&error.to_string()), "{error}");
                refused += 1;
            }
        }
    });
    assert!(opened > 0 && refused > 0, "{opened} opened and {refused} were refused");
}
