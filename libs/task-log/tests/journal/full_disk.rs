//! A disk that is full, or that does not keep what it was given.

use super::*;

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
