//! What a journal promises: across a restart, a kill, a full disk and damage.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test helper fails by panicking"
)]

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
    EngineChunk { text: text.to_owned(), tokens: vec![1], unnamed: 0, raw: raw("{\"content\":  \"x\"}") }
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

/// Behind so many entries.
fn position(entries: usize) -> Option<task_log::Position> {
    entries.checked_sub(1).map(|last| last.to_string().parse().unwrap())
}

fn shown(entries: &[Entry]) -> Vec<String> {
    entries.iter().map(|entry| serde_json::to_string(entry).unwrap()).collect()
}

fn read(log: &TaskLog) -> Vec<Entry> {
    let mut follower = log.follow(None);
    std::iter::from_fn(|| follower.try_next()).map(|(_, entry)| (*entry).clone()).collect()
}

fn until(mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "not within 20 s");
        std::thread::yield_now();
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

/// STREAM-002: three processes, of which each loses the end of what it said; the second all of it.
#[test]
fn the_id_of_an_event_that_is_lost_is_never_another_events() {
    let dir = scratch();
    let Opened { journal, next_seq, .. } = open(dir.path());
    let (log, mut writer) = start(&journal, next_seq);
    let mut seen = Vec::new();
    let say = |log: &TaskLog, writer: &mut LogWriter, words: &[&str], seen: &mut Vec<_>| {
        let before = usize::try_from(log.entries_len()).unwrap();
        words.iter().for_each(|word| assert!(writer.chunk(chunk(word)).is_ok()));
        until(|| log.entries_len() as usize == before + words.len());
        let mut follower = log.follow(None);
        let all = std::iter::from_fn(|| follower.try_next())
            .map(|(id, entry)| (id, serde_json::to_string(&*entry).unwrap()));
        seen.extend(all.skip(before));
    };
    say(&log, &mut writer, &["a", "b", "c", "d"], &mut seen);
    let mut life = killed(dir.path());
    for (kept, words) in [(2, ["B", "C"]), (0, ["x", "y"]), (1, ["1", "2"])] {
        // So many entries are kept of the process before.
        let file = event_file_of_last_life(life.path());
        let bytes = fs::read(&file).unwrap();
        let ends: Vec<usize> = ends_of_entries(&bytes);
        fs::write(&file, &bytes[..ends[kept]]).unwrap();
        let opened = open(life.path());
        let [task] = <[Recovered; 1]>::try_from(opened.tasks).unwrap();
        let (log, writer) = opened.journal.restore(task.seq, task.entries, LIMIT);
        let mut writer = writer.unwrap();
        say(&log, &mut writer, &words, &mut seen);
        let mut follower = log.follow(None);
        let all: Vec<_> = std::iter::from_fn(|| follower.try_next())
            .map(|(id, entry)| (id, serde_json::to_string(&*entry).unwrap()))
            .collect();
        for (id, entry) in &seen {
            let there = all.iter().position(|(there, _)| there == id);
            assert!(there.is_none_or(|at| all[at].1 == *entry), "{id} names {entry} and {all:?}");
            assert!(log.gave_out(*id), "{id}");
            let mut behind = log.follow(Some(id.to_string().parse().unwrap()));
            let first = behind.try_next().map(|(id, _)| id);
            match there {
                Some(at) => assert_eq!(first, all.get(at + 1).map(|(id, _)| *id), "behind {id}"),
                None => assert!(first.is_some_and(|first| first.to_string().contains('-')), "behind {id}"),
            }
        }
        life = killed(life.path());
        opened.journal.close();
        drop(log);
    }
    let ids: std::collections::HashSet<_> = seen.iter().map(|(id, _)| id.to_string()).collect();
    assert_eq!((ids.len(), seen.len()), (10, 10), "{ids:?}");
}

/// The file that the last process wrote.
fn event_file_of_last_life(dir: &Path) -> PathBuf {
    files(&dir.join("events")).pop().unwrap()
}

/// Where the last record ends that says what was on disk.
fn behind_the_last_mark(bytes: &[u8]) -> Option<usize> {
    let (mut found, mut at) = (None, 16);
    while let Some(length) = bytes.get(at + 4..at + 8) {
        let kind = bytes.get(at + 12);
        at += 12 + u32::from_le_bytes(length.try_into().unwrap()) as usize;
        found = if kind == Some(&2) { Some(at) } else { found };
    }
    found
}

/// Where the head of an event file ends, and each entry.
fn ends_of_entries(bytes: &[u8]) -> Vec<usize> {
    let (mut ends, mut at) = (vec![16], 16);
    while let Some(length) = bytes.get(at + 4..at + 8) {
        let length = u32::from_le_bytes(length.try_into().unwrap()) as usize;
        at += 12 + length;
        if at > bytes.len() {
            break;
        }
        if bytes[at - length] == 1 {
            ends.push(at);
        }
    }
    ends
}

/// ORCHD-JOURNAL-011
#[test]
fn an_event_is_in_the_file_before_a_reader_can_see_it() {
    let dir = scratch();
    let Opened { journal, next_seq, .. } = open(dir.path());
    let (log, mut writer) = start(&journal, next_seq);
    for n in 0..200 {
        let word = format!("WORD{n};");
        writer.chunk(chunk(&word)).unwrap();
        until(|| log.entries_len() == n + 1);
        assert!(fs::read_to_string(event_file(dir.path())).map_or_else(
            |_| String::from_utf8_lossy(&fs::read(event_file(dir.path())).unwrap()).contains(&word),
            |text| text.contains(&word)
        ));
    }
    journal.close();
}

/// STREAM-015, ORCHD-JOURNAL-010. Also while the disk refuses what is let go of: nothing of it is missed later.
#[test]
fn a_log_is_let_go_of_behind_all_that_the_journal_does_with_it() {
    let dir = scratch();
    let full = Arc::new(AtomicBool::new(false));
    let options = Options { space: Space::full_while(Arc::clone(&full)), ..Options::default() };
    let Opened { journal, .. } = Journal::open(dir.path(), options).unwrap();
    let kept = whole(&journal, 1, &["kept"]);
    let (unwritten, mut writer) = start(&journal, 2);
    full.store(true, Ordering::SeqCst);
    let let_go = |seq: u64, log: &TaskLog| {
        let mut reader = log.follow(None);
        journal.forget(seq);
        journal.let_go(&log.held());
        until(|| log.is_let_go());
        assert!(reader.try_next().is_none());
        assert_eq!(reader.behind().map(|behind| behind.entries), Some(log.entries_len()));
    };
    writer.chunk(chunk("unwritten")).unwrap();
    writer.end(end());
    journal.ended(2, &unwritten, raw("{\"state\":\"done\"}"));
    let_go(2, &unwritten);
    full.store(false, Ordering::SeqCst);
    until(|| journal.is_writable());
    let_go(3, &whole(&journal, 3, &["written"]));
    journal.close();
    drop(journal);
    let Opened { tasks, .. } = open(dir.path());
    assert_eq!(tasks.iter().map(|task| task.seq).collect::<Vec<_>>(), [1]);
    assert_eq!(shown(&tasks[0].entries), shown(&read(&kept)));
}

/// ORCHD-JOURNAL-011, ORCHD-JOURNAL-012. Driven, then not any more, then again, then closed: whoever writes, nothing is seen
/// before it is written, and nothing is missing or out of its order.
#[test]
fn events_are_written_first_whoever_writes_them() {
    let dir = scratch();
    let Opened { journal, .. } = open(dir.path());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let (log, mut writer) = start(&journal, 1);
    let mut said = Vec::new();
    let mut say = |journal: &Journal, driven: bool| {
        let words: Vec<String> = (0..100).map(|n| format!("word-{}-{n}", said.len())).collect();
        let driving = runtime.block_on(async {
            let driving = driven.then(|| {
                let journal = journal.clone();
                tokio::spawn(async move { journal.drive().await })
            });
            let mut follower = log.follow(position(said.len()));
            for word in &words {
                writer.chunk(chunk(word)).unwrap();
                let (_, entry) = follower.next().await.unwrap();
                let Entry::Chunk { chunk, .. } = &*entry else { panic!("{entry:?}") };
                assert_eq!(&chunk.text, word);
                assert!(holds_text(dir.path(), word), "{word} was seen before it was written");
            }
            driving
        });
        if let Some(driving) = driving {
            driving.abort();
            assert!(runtime.block_on(driving).unwrap_err().is_cancelled());
        }
        said.extend(words);
    };
    for driven in [true, false, true] {
        say(&journal, driven);
    }
    let drives = journal.clone();
    let _driving = runtime.spawn(async move { drives.drive().await });
    runtime.block_on(tokio::task::yield_now());
    // Handed to a driver that is not polled any more: the close writes it.
    writer.chunk(chunk("last")).unwrap();
    said.push("last".to_owned());
    journal.close();
    drop(journal);
    let texts = read(&log)
        .iter()
        .map(|entry| match entry {
            Entry::Chunk { chunk, .. } => chunk.text.clone(),
            other => panic!("{other:?}"),
        })
        .collect::<Vec<_>>();
    assert_eq!(texts, said);
    let Opened { tasks, .. } = open(dir.path());
    assert_eq!(shown(&tasks[0].entries), shown(&read(&log)));
}

/// ORCHD-JOURNAL-004
#[test]
fn a_prompt_is_gone_once_its_task_has_ended() {
    let dir = scratch();
    let Opened { journal, next_seq, .. } = open(dir.path());
    let live = start(&journal, next_seq);
    let prompt = format!("PROMPT {}", next_seq + 1);
    let (log, writer) = start(&journal, next_seq + 1);
    assert!(holds_text(dir.path(), &prompt));
    writer.end(end());
    journal.ended(next_seq + 1, &log, raw("null"));
    until(|| !holds_text(dir.path(), &prompt));
    assert!(holds_text(dir.path(), &format!("PROMPT {next_seq}")), "the other one's stays");
    journal.close();
    drop(live);
}

/// ORCHD-JOURNAL-004: also of a task whose end was the last thing before a crash.
#[test]
fn a_prompt_whose_task_ended_in_the_last_moment_goes_at_the_next_start() {
    let dir = scratch();
    let options = Options { sync_every: Duration::from_secs(3600), ..Options::default() };
    let Opened { journal, next_seq, .. } = Journal::open(dir.path(), options).unwrap();
    let log = whole(&journal, next_seq, &["a"]);
    until(|| log.entries_len() == 2);
    let restart = killed(dir.path());
    assert!(holds_text(restart.path(), "PROMPT"));
    let opened = open(restart.path());
    assert!(opened.tasks[0].end.as_ref().is_some_and(|end| end.summary.is_none()));
    assert!(!holds_text(restart.path(), "PROMPT"));
    opened.journal.close();
    let again = open(restart.path());
    assert!(again.tasks[0].end.as_ref().is_some_and(|end| end.summary.is_some()), "recorded by then");
    again.journal.close();
}

/// ORCHD-JOURNAL-003: places are used again, and of equal prompts only one has ended.
#[test]
fn a_live_prompt_with_the_bytes_and_the_place_of_an_ended_one_stays() {
    let dir = scratch();
    let Opened { journal, next_seq, .. } = open(dir.path());
    let admit_same = |seq| {
        let (done, outcome) = mpsc::channel();
        let admission = Admission { seq, record: raw("{}"), prompt: b"THE SAME".to_vec() };
        journal.admit(admission, Box::new(move |outcome| done.send(outcome).unwrap()));
        outcome.recv_timeout(Duration::from_secs(20)).unwrap().unwrap();
    };
    admit_same(next_seq);
    let (log, writer) = journal.log(next_seq, LIMIT);
    writer.end(end());
    journal.ended(next_seq, &log, raw("null"));
    until(|| !holds_text(dir.path(), "THE SAME") && files(&dir.path().join("prompts")).len() == 1);
    until(|| files(&dir.path().join("prompts")).iter().all(|file| fs::metadata(file).unwrap().len() == 0));
    admit_same(next_seq + 1);
    journal.close();
    for _ in 0..2 {
        let opened = open(dir.path());
        let [ended, live] = <[Recovered; 2]>::try_from(opened.tasks).unwrap();
        assert!(ended.end.is_some() && live.end.is_none());
        assert_eq!(live.prompt.as_deref(), Some(b"THE SAME".as_slice()));
        opened.journal.close();
    }
}

/// ORCHD-JOURNAL-006
#[test]
fn a_journal_torn_at_any_byte_opens_with_every_event_before_it() {
    let dir = scratch();
    let Opened { journal, next_seq, .. } = open(dir.path());
    let (log, mut writer) = start(&journal, next_seq);
    ["a", "b"].iter().for_each(|word| assert!(writer.chunk(chunk(word)).is_ok()));
    until(|| log.entries_len() == 2);
    let torn = killed(dir.path());
    let file = event_file(torn.path());
    let bytes = fs::read(&file).unwrap();
    let mut most = 0;
    for cut in 0..=bytes.len() {
        let copy = killed(torn.path());
        let file = copy.path().join(file.strip_prefix(torn.path()).unwrap());
        fs::write(&file, &bytes[..cut]).unwrap();
        let opened = open(copy.path());
        let entries = opened.tasks[0].entries.len();
        assert!(entries >= most, "{cut}: {entries} events after {most}");
        most = entries;
        assert_eq!(shown(&opened.tasks[0].entries), shown(&read(&log))[..entries], "{cut}");
        opened.journal.close();
        if cut % 16 == 0 {
            let check = journal::check(copy.path()).unwrap();
            assert!(check.problems.is_empty() && check.notes.is_empty(), "{cut}: {check:?}");
        }
    }
    assert_eq!(most, 2);
}

/// ORCHD-JOURNAL-007
#[test]
fn a_damaged_journal_stops_the_start_and_repair_keeps_what_can_be_read() {
    let dir = scratch();
    let Opened { journal, next_seq, .. } = open(dir.path());
    let (one, two) =
        (whole(&journal, next_seq, &["a", "DAMAGED", "c"]), whole(&journal, next_seq + 1, &["d"]));
    journal.close();
    let file = event_file(dir.path());
    let mut bytes = fs::read(&file).unwrap();
    let at = bytes.windows(7).position(|at| at == b"DAMAGED").unwrap();
    bytes[at] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let events = || -> Vec<_> {
        files(&dir.path().join("events")).iter().map(|file| (file.clone(), fs::read(file).unwrap())).collect()
    };
    let before = events();

    let error = Journal::open(dir.path(), Options::default()).unwrap_err();
    let JournalError::Damaged { path, offset, .. } = &error else { panic!("{error}") };
    assert_eq!(*path, file);
    assert!(*offset < at as u64 && at as u64 - *offset < 200, "{offset} for {at}");
    let text = error.to_string();
    assert!(text.contains("journal repair") && text.contains("mv "), "{text}");
    assert!(before == events(), "a start that stops changes nothing");

    let check = journal::check(dir.path()).unwrap();
    assert!(check.problems.iter().any(|problem| problem.contains(&format!("byte {offset}"))), "{check:?}");
    let done = journal::repair(dir.path()).unwrap();
    assert!(
        done.iter().any(|line| line.contains(&format!("task number {next_seq} keeps 1 of its 4"))),
        "{done:?}"
    );
    assert!(journal::check(dir.path()).unwrap().problems.is_empty());
    let opened = open(dir.path());
    let [first, second] = <[Recovered; 2]>::try_from(opened.tasks).unwrap();
    assert_eq!(shown(&first.entries)[..1], shown(&read(&one))[..1]);
    assert!(matches!(&first.entries[1..], [Entry::Error(error)] if error.tokens_sent == 1));
    assert_eq!(shown(&second.entries), shown(&read(&two)));
    opened.journal.close();
}

/// ORCHD-JOURNAL-007: a file that ends too early looks whole, and the store knows better.
#[test]
fn events_that_are_missing_from_an_ended_task_stop_the_start() {
    let dir = scratch();
    let Opened { journal, next_seq, .. } = open(dir.path());
    drop(whole(&journal, next_seq, &["a", "b", "c"]));
    journal.close();
    let file = event_file(dir.path());
    let length = fs::metadata(&file).unwrap().len();
    fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(length / 2).unwrap();
    let error = Journal::open(dir.path(), Options::default()).unwrap_err();
    assert!(matches!(error, JournalError::Missing { seq, expected: 4, .. } if seq == next_seq), "{error}");
    assert!(error.to_string().contains("journal repair"), "{error}");
    assert_eq!(journal::check(dir.path()).unwrap().problems.len(), 1);
    journal::repair(dir.path()).unwrap();
    let opened = open(dir.path());
    assert!(opened.tasks[0].entries.last().unwrap().is_terminal());
    opened.journal.close();
}

/// ORCHD-JOURNAL-007
#[test]
fn a_store_that_is_not_one_stops_the_start_and_repair_sets_it_aside() {
    let dir = scratch();
    let opened = open(dir.path());
    drop(whole(&opened.journal, opened.next_seq, &["a"]));
    opened.journal.close();
    fs::write(dir.path().join("tasks.redb"), "not a store of tasks, but long enough to be looked at")
        .unwrap();
    let error = Journal::open(dir.path(), Options::default()).unwrap_err();
    assert!(matches!(error, JournalError::Store { .. }), "{error}");
    assert!(error.to_string().contains("tasks.redb"), "{error}");
    assert_eq!(journal::check(dir.path()).unwrap().problems.len(), 1);
    assert!(journal::repair(dir.path()).unwrap()[0].contains("set-aside"));
    let again = open(dir.path());
    assert!(again.tasks.is_empty());
    assert!(again.next_seq > opened.next_seq, "a number is never given twice");
    again.journal.close();
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

/// ORCHD-JOURNAL-008
#[test]
fn a_full_disk_refuses_admissions_while_streams_go_on_and_nothing_is_lost_after() {
    let dir = scratch();
    let full = Arc::new(AtomicBool::new(false));
    let options = Options { space: Space::full_while(Arc::clone(&full)), ..Options::default() };
    let Opened { journal, next_seq, .. } = Journal::open(dir.path(), options).unwrap();
    let (log, mut writer) = start(&journal, next_seq);
    let (short, short_writer) = start(&journal, next_seq + 1);
    writer.chunk(chunk("a")).unwrap();
    until(|| log.entries_len() == 1);
    full.store(true, Ordering::SeqCst);
    assert_eq!(admit(&journal, next_seq + 2), Err(Unrecorded));
    writer.chunk(chunk("b")).unwrap();
    short_writer.end(end());
    journal.ended(next_seq + 1, &short, raw("null"));
    until(|| log.entries_len() == 2 && short.entries_len() == 1);
    assert!(!journal.is_writable());
    assert_eq!(admit(&journal, next_seq + 3), Err(Unrecorded));
    full.store(false, Ordering::SeqCst);
    let freed = Instant::now();
    until(|| journal.is_writable());
    assert!(freed.elapsed() < Duration::from_secs(5), "{:?}", freed.elapsed());
    admit(&journal, next_seq + 4).unwrap();
    writer.chunk(chunk("c")).unwrap();
    until(|| log.entries_len() == 3);
    journal.close();
    let opened = open(dir.path());
    let seqs: Vec<u64> = opened.tasks.iter().map(|task| task.seq).collect();
    assert_eq!(seqs, [next_seq, next_seq + 1, next_seq + 4], "what was refused is not there");
    assert_eq!(shown(&opened.tasks[0].entries), shown(&read(&log)));
    assert!(opened.tasks[1].end.is_some());
    opened.journal.close();
}

/// ORCHD-JOURNAL-008: a full disk is no damage, and repair sets nothing aside for it.
#[test]
fn a_start_on_a_full_disk_says_that_it_is_full() {
    let dir = scratch();
    let full = Arc::new(AtomicBool::new(true));
    let options = Options { space: Space::full_while(Arc::clone(&full)), ..Options::default() };
    let error = Journal::open(dir.path(), options.clone()).unwrap_err();
    let JournalError::Io { source, .. } = &error else { panic!("{error}") };
    assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
    full.store(false, Ordering::SeqCst);
    Journal::open(dir.path(), options).unwrap().journal.close();
}

/// ORCHD-JOURNAL-013: the kernel lets go of what it could not write, and says so only once.
#[test]
fn what_a_failed_sync_may_have_lost_is_written_anew_before_it_counts() {
    let dir = scratch();
    let fails = Arc::new(AtomicBool::new(false));
    let space = Space::unsynced_while(Arc::clone(&fails));
    let options = Options { space, sync_every: Duration::from_millis(5), ..Options::default() };
    let Opened { journal, next_seq, .. } = Journal::open(dir.path(), options).unwrap();
    let (log, mut writer) = start(&journal, next_seq);
    let (short, short_writer) = start(&journal, next_seq + 1);
    writer.chunk(chunk("a")).unwrap();
    let first = event_file(dir.path());
    until(|| behind_the_last_mark(&fs::read(&first).unwrap()).is_some());
    fails.store(true, Ordering::SeqCst);
    writer.chunk(chunk("b")).unwrap();
    short_writer.end(end());
    journal.ended(next_seq + 1, &short, raw("null"));
    until(|| log.entries_len() == 2 && short.entries_len() == 1 && !journal.is_writable());
    assert_eq!(admit(&journal, next_seq + 2), Err(Unrecorded));
    // Several tries, of which none leaves a file behind: the first one, the one being written, and at most one
    // that is on its way out.
    until(|| event_file_of_last_life(dir.path()).ends_with("00000004.events"));
    assert!(files(&dir.path().join("events")).len() <= 3, "{:?}", files(&dir.path().join("events")));
    let bytes = fs::read(&first).unwrap();
    let from = behind_the_last_mark(&bytes).unwrap();
    assert!(from < bytes.len(), "something of it was never on disk");
    let lost = fs::OpenOptions::new().write(true).open(&first).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&lost, &vec![0; bytes.len() - from], from as u64).unwrap();
    // A power cut now: the store knows of nothing that is not on disk.
    let cut = copied(dir.path(), |path| path.extension() != first.extension() || path == first);
    let opened = open(cut.path());
    assert_eq!(shown(&opened.tasks[0].entries), shown(&read(&log))[..1]);
    assert!(opened.tasks[1].end.is_none() && opened.tasks[1].prompt.is_some());
    opened.journal.close();
    writer.chunk(chunk("c")).unwrap();
    fails.store(false, Ordering::SeqCst);
    until(|| journal.is_writable());
    admit(&journal, next_seq + 3).unwrap();
    writer.chunk(chunk("d")).unwrap();
    until(|| log.entries_len() == 4);
    journal.close();
    let opened = open(dir.path());
    assert_eq!(shown(&opened.tasks[0].entries), shown(&read(&log)));
    assert!(opened.tasks[1].end.as_ref().is_some_and(|end| end.summary.is_some()), "recorded by then");
    opened.journal.close();
    assert!(journal::check(dir.path()).unwrap().problems.is_empty());
}

/// ORCHD-JOURNAL-010
#[test]
fn what_is_forgotten_leaves_the_disk_even_beside_what_stays() {
    let dir = scratch();
    let options = Options { file_bytes: 20_000, sync_every: Duration::from_millis(5), ..Options::default() };
    let Opened { journal, next_seq, .. } = Journal::open(dir.path(), options.clone()).unwrap();
    let (kept, mut writer) = start(&journal, next_seq);
    for n in 0..200 {
        // Every file holds something of the task that stays.
        writer.chunk(chunk("kept")).unwrap();
        let seq = next_seq + 1 + n;
        let log = whole(&journal, seq, &["GONE"; 20]);
        until(|| log.entries_len() == 21);
        journal.forget(seq);
    }
    let bytes = || {
        files(&dir.path().join("events"))
            .iter()
            .map(|file| fs::metadata(file).map_or(0, |m| m.len()))
            .sum::<u64>()
    };
    until(|| bytes() < 8 * 20_000);
    until(|| kept.entries_len() == 200);
    journal.close();
    let opened = Journal::open(dir.path(), options).unwrap();
    assert_eq!(opened.tasks.len(), 1);
    assert_eq!(shown(&opened.tasks[0].entries), shown(&read(&kept)));
    opened.journal.close();
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

/// ORCHD-JOURNAL-009: an event file that version 1 wrote, kept byte for byte.
#[test]
fn an_event_file_of_the_first_version_is_read() {
    let dir = scratch();
    let Opened { journal, next_seq, .. } = open(dir.path());
    admit(&journal, next_seq).unwrap();
    journal.close();
    fs::write(dir.path().join("events/00000009.events"), include_bytes!("fixtures/version-1.events"))
        .unwrap();
    let opened = open(dir.path());
    let expected = [
        r#"{"started":{"queue_ms":5,"pool_id":"p","replica_id":"r0","engine_version":"b1","model":"m"}}"#,
        r#"{"chunk":{"chunk":{"text":"a","tokens":[1],"raw":{"content":  "x"}},"index":0}}"#,
        r#"{"resumed":{"from_index":1,"reason":"why","replica_id":"r1"}}"#,
        r#"{"end":{"tokens_in":1,"tokens_out":2,"decode_time_ms":3,"finish_reason":"stop","receipt":{"engine_version":"b1","model_digest":"d","seed":"42","tokens_sha256":"t"}}}"#,
    ];
    assert_eq!(next_seq, 1, "the fixture is of task number 1");
    let shown: Vec<serde_json::Value> =
        opened.tasks[0].entries.iter().map(|entry| serde_json::to_value(entry).unwrap()).collect();
    for (shown, expected) in shown.iter().zip(expected) {
        let expected: serde_json::Value = serde_json::from_str(expected).unwrap();
        assert!(holds(shown, &expected), "{shown} for {expected}");
    }
    assert_eq!(shown.len(), expected.len());
    opened.journal.close();
}

/// Whether everything in `old` is in `new`; what is newer may have more.
fn holds(new: &serde_json::Value, old: &serde_json::Value) -> bool {
    match old {
        serde_json::Value::Object(fields) => {
            fields.iter().all(|(name, old)| new.get(name).is_some_and(|new| holds(new, old)))
        }
        old => new == old,
    }
}

/// ORCHD-JOURNAL-009
#[test]
fn a_store_of_a_later_version_is_refused_and_left_as_it_is() {
    let dir = scratch();
    let opened = open(dir.path());
    admit(&opened.journal, opened.next_seq).unwrap();
    opened.journal.close();
    let set = |version: u64| {
        let store = redb::Database::open(dir.path().join("tasks.redb")).unwrap();
        let write = store.begin_write().unwrap();
        let meta: redb::TableDefinition<'_, &str, u64> = redb::TableDefinition::new("meta");
        write.open_table(meta).unwrap().insert("version", version).unwrap();
        write.commit().unwrap();
    };
    set(7);
    let error = Journal::open(dir.path(), Options::default()).unwrap_err();
    assert!(matches!(error, JournalError::Version { found: 7, .. }), "{error}");
    assert!(error.to_string().contains("later version (7"), "{error}");
    assert!(
        matches!(journal::repair(dir.path()), Err(JournalError::Version { .. })),
        "repair leaves it alone"
    );
    set(1);
    let opened = open(dir.path());
    assert_eq!(opened.tasks.len(), 1);
    opened.journal.close();
}
