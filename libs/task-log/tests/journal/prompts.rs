//! Prompts: there until their task has ended, and not a moment longer.

use super::*;

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
