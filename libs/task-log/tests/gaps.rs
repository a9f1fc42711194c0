//! Journals that lost an event in the middle of a task: what is found in front of it, what is said of what
//! stood behind, and what becomes of the prompt.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test helper fails by panicking")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::value::RawValue;
use support::{HEAD, LIMIT, RECORD, begin, files, open, say, scratch};
use task_log::journal::{self, Gap, JournalError, Opened, Options, Recovered};
use task_log::{Entry, Journal};
use wire::ErrorCode;
use wire::event::StreamError;

const WORDS: [&str; 3] = ["one", "two", "three"];

fn over(message: &str) -> StreamError {
    let (message, code) = (message.to_owned(), ErrorCode::Interrupted);
    StreamError { code, message, retriable: true, retry_after_ms: None, hint: None, tokens_sent: 0 }
}

/// A journal as a kill leaves it in which task 1 has said everything and ended, or not, and the store does
/// not know of an end.
fn cut_off(ended: bool) -> tempfile::TempDir {
    let dir = scratch();
    // Nothing is committed by itself: a copy of a store in the middle of a commit is none.
    let options = Options { sync_every: Duration::from_secs(3600), ..Options::default() };
    let Opened { journal, .. } = Journal::open(dir.path(), options).unwrap();
    let (log, mut writer) = begin(&journal, 1);
    WORDS.iter().for_each(|word| say(&mut writer, word));
    let len = WORDS.len() as u64 + u64::from(ended);
    if ended {
        writer.error(over("THE END"));
    } else {
        writer.discard();
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    while log.entries_len() < len {
        assert!(Instant::now() < deadline, "not written within 60 s");
        std::thread::sleep(Duration::from_millis(1));
    }
    let copy = scratch();
    for file in files(dir.path()) {
        let to = copy.path().join(file.strip_prefix(dir.path()).unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(&file, to).unwrap();
    }
    journal.close();
    copy
}

fn event_file(dir: &Path) -> PathBuf {
    files(&dir.join("events")).into_iter().max_by_key(|file| fs::metadata(file).unwrap().len()).unwrap()
}

/// The bytes of the record of the event at a place.
fn record(bytes: &[u8], place: u64) -> std::ops::Range<usize> {
    let mut from = HEAD;
    loop {
        let length = u32::from_le_bytes(bytes[from + 4..from + 8].try_into().unwrap()) as usize;
        let (body, to) = (from + RECORD, from + RECORD + length);
        let at = u64::from_le_bytes(bytes[body + 9..body + 17].try_into().unwrap());
        if bytes[body] == 1 && at == place {
            return from..to;
        }
        from = to;
    }
}

/// As a disk leaves it that never wrote the event, or a program that does not know it.
fn lose(dir: &Path, place: u64) {
    let file = event_file(dir);
    let mut bytes = fs::read(&file).unwrap();
    bytes.drain(record(&bytes, place));
    fs::write(file, bytes).unwrap();
}

/// As a disk leaves it that had the event and changed a byte of it.
fn damage(dir: &Path, place: u64) {
    let file = event_file(dir);
    let mut bytes = fs::read(&file).unwrap();
    let at = record(&bytes, place).end - 1;
    bytes[at] ^= 1;
    // All of it was on disk.
    let mut body = vec![2];
    body.extend_from_slice(&0_u64.to_le_bytes());
    body.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    bytes.extend_from_slice(b"\xf1rec");
    bytes.extend_from_slice(&u32::try_from(body.len()).unwrap().to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
    bytes.extend_from_slice(&body);
    fs::write(file, bytes).unwrap();
}

fn the_task(tasks: Vec<Recovered>) -> Recovered {
    let [task] = <[Recovered; 1]>::try_from(tasks).unwrap();
    task
}

fn holds_prompt(dir: &Path) -> bool {
    files(&dir.join("prompts"))
        .iter()
        .any(|file| fs::read(file).unwrap().windows(8).any(|at| at == b"PROMPT 1"))
}

/// ORCHD-JOURNAL-007, ORCHD-JOURNAL-014: lost in whichever way and at whichever place.
#[test]
fn what_stands_in_front_of_a_lost_event_is_there_with_the_prompt_and_what_stood_behind_is_told_apart() {
    for (ended, damaged) in [(true, false), (false, false), (true, true), (false, true)] {
        let sound = cut_off(ended);
        let places = WORDS.len() as u64 + u64::from(ended);
        for place in 0..places {
            let what = format!("event {place} of {places}, damaged: {damaged}");
            let dir = scratch();
            for file in files(sound.path()) {
                let to = dir.path().join(file.strip_prefix(sound.path()).unwrap());
                fs::create_dir_all(to.parent().unwrap()).unwrap();
                fs::copy(&file, to).unwrap();
            }
            let last = place + 1 == places;
            let mut mended = Vec::new();
            if damaged {
                damage(dir.path(), place);
                let stopped = Journal::open(dir.path(), Options::default()).unwrap_err();
                assert!(matches!(stopped, JournalError::Damaged { .. }), "{what}: {stopped}");
                mended = journal::repair(dir.path()).unwrap();
            } else {
                lose(dir.path(), place);
            }
            let told = |lines: &[String]| {
                let said = format!("task number 1 has lost events behind its first {place}: ");
                lines.iter().filter(|line| line.contains(&said)).count()
            };
            let check = journal::check(dir.path()).unwrap();
            assert!(check.problems.is_empty(), "{what}: {check:?}");
            assert_eq!(told(&check.notes), usize::from(!last), "{what}: {check:?}");
            assert_eq!(told(&mended), usize::from(damaged && !last), "{what}: {mended:?}");

            let Opened { journal, tasks, .. } = open(dir.path());
            let task = the_task(tasks);
            // Behind the last one nothing shows that it was there.
            let gap = if ended { Gap::BeforeItsEnd } else { Gap::WhileItRan };
            assert_eq!((task.gap, task.end.is_none()), ((!last).then_some(gap), true), "{what}");
            assert_eq!(task.entries.len() as u64, place, "{what}");
            assert_eq!(task.prompt.as_deref(), Some(b"PROMPT 1".as_slice()), "{what}");
            assert!(holds_prompt(dir.path()), "{what}");

            let (log, writer) = journal.restore(1, task.entries, LIMIT);
            writer.unwrap().error(over("TOLD"));
            journal.ended(1, &log, RawValue::NULL.to_owned());
            journal.close();
            assert!(!holds_prompt(dir.path()), "{what}: it has ended");
            let check = journal::check(dir.path()).unwrap();
            assert!(check.problems.is_empty() && check.notes.is_empty(), "{what}: {check:?}");
            let Opened { journal, tasks, .. } = open(dir.path());
            let task = the_task(tasks);
            assert_eq!((task.gap, task.end.is_some()), (None, true), "{what}");
            let Some(Entry::Error(error)) = task.entries.last() else { panic!("{what}: {:?}", task.entries) };
            assert_eq!(
                (error.message.as_str(), error.tokens_sent, task.entries.len() as u64),
                ("TOLD", place, place + 1),
                "{what}"
            );
            journal.close();
        }
    }
}

/// ORCHD-JOURNAL-014: of a task of which nothing is left but where a later process began.
#[test]
fn a_later_process_shows_what_was_there_before_it_although_nothing_of_it_is_left() {
    let dir = cut_off(false);
    let first = event_file(dir.path());
    let Opened { journal, tasks, .. } = open(dir.path());
    let (_, writer) = journal.restore(1, the_task(tasks).entries, LIMIT);
    let mut writer = writer.unwrap();
    say(&mut writer, "four");
    journal.close();
    writer.discard();
    let second = files(&dir.path().join("events")).pop().unwrap();
    let last = |file: &Path, place| {
        let mut bytes = fs::read(file).unwrap();
        bytes.drain(record(&bytes, place));
        fs::write(file, bytes).unwrap();
    };
    last(&second, 3);
    let opened = open(dir.path());
    opened.journal.close();
    assert_eq!(the_task(opened.tasks).gap, None, "it may have said nothing");
    last(&first, 2);
    let opened = open(dir.path());
    opened.journal.close();
    let task = the_task(opened.tasks);
    assert_eq!((task.gap, task.entries.len()), (Some(Gap::WhileItRan), 2));
}

/// ORCHD-JOURNAL-014: of one that is recorded as ended the repair says the same.
#[test]
fn a_task_that_had_ended_says_behind_which_of_its_tokens_events_were_lost() {
    for place in 0..=WORDS.len() as u64 {
        let dir = scratch();
        let Opened { journal, .. } = open(dir.path());
        for seq in [1, 2] {
            let (log, mut writer) = begin(&journal, seq);
            WORDS.iter().for_each(|word| say(&mut writer, word));
            writer.error(over("THE END"));
            journal.ended(seq, &log, RawValue::NULL.to_owned());
        }
        journal.close();
        // The first one's, then what is at that place now: the second one's.
        lose(dir.path(), place);
        lose(dir.path(), place);
        assert!(matches!(
            Journal::open(dir.path(), Options::default()),
            Err(JournalError::Missing { seq: 1, .. })
        ));
        let problems = journal::check(dir.path()).unwrap().problems;
        assert_eq!(problems.len(), 2, "all of them: {problems:?}");
        journal::repair(dir.path()).unwrap();
        let Opened { journal, tasks, .. } = open(dir.path());
        for task in tasks {
            let Some(Entry::Error(error)) = task.entries.last() else { panic!("{:?}", task.entries) };
            assert_eq!(error.message, journal::lost_behind(place.min(3)));
            let words = match place {
                0 => "events of this task from its first token on were lost in the journal",
                1 => "events of this task behind its token 0 (the first is 0) were lost in the journal",
                _ => "were lost in the journal; submit it again",
            };
            assert!(error.message.contains(words), "{}", error.message);
            assert_eq!((error.code, error.tokens_sent), (ErrorCode::Interrupted, place));
            assert!(task.gap.is_none() && task.end.is_some());
        }
        journal.close();
    }
}
