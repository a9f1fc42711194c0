//! A torn tail is cut; damage elsewhere stops the start, and repair keeps what can be read.

use super::*;

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
