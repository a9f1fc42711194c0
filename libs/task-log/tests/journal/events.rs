//! Events: on disk before anybody sees them, under names that are never another's, and gone when they are forgotten.

use super::*;

/// Behind so many entries.
fn position(entries: usize) -> Option<task_log::Position> {
    entries.checked_sub(1).map(|last| last.to_string().parse().unwrap())
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
