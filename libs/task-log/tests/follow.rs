//! What a log promises its readers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test helper fails by panicking"
)]

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use task_log::{Behind, Entry, Follower, Position, Readers, TaskLog};
use wire::event::{End, FinishReason, Receipt, StreamError};
use wire::{EngineChunk, ErrorCode};

fn chunk(text: &str) -> EngineChunk {
    EngineChunk { text: text.to_owned(), tokens: vec![1], ..EngineChunk::default() }
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

fn shown(entry: &Entry) -> String {
    match entry {
        Entry::Chunk { chunk, index, .. } => format!("{}#{index:?}", chunk.text),
        Entry::End(_) => "end".to_owned(),
        Entry::Error(error) => format!("error {}", error.code.as_str()),
        Entry::Started(_) => "started".to_owned(),
        Entry::Resumed(_) => "resumed".to_owned(),
    }
}

async fn read(mut follower: Follower) -> Vec<(Position, String)> {
    let mut seen = Vec::new();
    while let Some((position, entry)) = follower.next().await {
        seen.push((position, shown(&entry)));
    }
    assert!(follower.next().await.is_none(), "an ended follower stays ended");
    seen
}

fn position(text: &str) -> Option<Position> {
    Some(text.parse().unwrap())
}

#[tokio::test]
async fn only_chunks_with_text_are_numbered_and_without_gaps() {
    let (log, mut writer) = TaskLog::new(1 << 20);
    let indices: Vec<_> = ["", "a", "", "b", "c"].map(|t| writer.chunk(chunk(t)).unwrap()).into();
    assert_eq!(indices, [None, Some(0), None, Some(1), Some(2)]);
    writer.end(end());
    assert_eq!(read(log.follow(None)).await.len(), 6);
}

#[tokio::test]
async fn a_reader_that_names_an_event_gets_what_came_after_it() {
    let (log, mut writer) = TaskLog::new(1 << 20);
    for text in ["a", "b", "c"] {
        writer.chunk(chunk(text)).unwrap();
    }
    writer.end(end());
    let all = read(log.follow(None)).await;
    for (n, (position, _)) in all.iter().enumerate() {
        let named: Position = position.to_string().parse().unwrap();
        assert_eq!(read(log.follow(Some(named))).await, all[n + 1..]);
    }
}

#[tokio::test]
async fn a_reader_from_beyond_the_end_ends() {
    let (log, writer) = TaskLog::new(1 << 20);
    writer.end(end());
    for beyond in ["0", "1", "63", "64", "9999", "18446744073709551615"] {
        assert!(read(log.follow(position(beyond))).await.is_empty(), "{beyond}");
    }
}

#[test]
fn a_position_is_digits_or_two_of_them_with_a_process_in_front() {
    for good in ["0", "7", "3-7", "18446744073709551615-18446744073709551615"] {
        assert_eq!(good.parse::<Position>().unwrap().to_string(), good);
    }
    let bad = [
        "",
        "-1",
        "+1",
        "1 ",
        "x",
        "18446744073709551616",
        "-",
        "1-",
        "-1-1",
        "0-1",
        "1--1",
        "1-2-3",
        "1-+2",
    ];
    for bad in bad {
        assert!(bad.parse::<Position>().is_err(), "{bad:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_is_dropped_lets_no_reader_wait_for_ever() {
    let (log, mut writer) = TaskLog::new(1 << 20);
    let reader = tokio::spawn(read(log.follow(None)));
    writer.chunk(chunk("a")).unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(writer);
    let seen = reader.await.unwrap();
    assert_eq!(seen.last().unwrap().1, "error INTERRUPTED");
    let Some(Entry::Error(error)) = log.terminal().as_deref().cloned() else { panic!("no error") };
    assert_eq!(error.tokens_sent, 1);
}

#[tokio::test]
async fn an_error_says_how_many_tokens_were_sent() {
    let (log, mut writer) = TaskLog::new(1 << 20);
    for text in ["a", "", "b"] {
        writer.chunk(chunk(text)).unwrap();
    }
    writer.error(StreamError {
        code: ErrorCode::EngineLost,
        message: String::new(),
        retriable: true,
        retry_after_ms: None,
        hint: None,
        tokens_sent: 99,
    });
    assert!(matches!(log.terminal().as_deref(), Some(Entry::Error(error)) if error.tokens_sent == 2));
}

#[tokio::test]
async fn a_full_log_refuses_chunks_and_still_ends() {
    let (log, mut writer) = TaskLog::new(10_000);
    let fitted = (0..).find(|_| writer.chunk(chunk(&"x".repeat(1_000))).is_err()).unwrap();
    assert!((5..10).contains(&fitted), "{fitted}");
    assert!(log.bytes() <= 10_000);
    assert_eq!(writer.token_events(), fitted);
    writer.end(end());
    assert_eq!(read(log.follow(None)).await.last().unwrap().1, "end");
}

/// STREAM-015
#[tokio::test]
async fn a_reader_of_a_log_that_is_let_go_of_learns_exactly_what_it_missed() {
    const CHUNKS: usize = 200;
    let (log, mut writer) = TaskLog::new(1 << 20);
    // What stands before each entry.
    let mut before = Vec::new();
    for n in 0..CHUNKS {
        before.push((log.bytes(), writer.token_events()));
        writer.chunk(chunk(&"x".repeat(n % 3))).unwrap();
    }
    before.push((log.bytes(), writer.token_events()));
    let follow = |at: usize| log.follow(at.checked_sub(1).and_then(|last| position(&last.to_string())));
    let mut readers: Vec<(usize, Follower)> = (0..=CHUNKS).map(|at| (at, follow(at))).collect();
    for at in 0..=CHUNKS {
        let mut reader = log.follow(None);
        for _ in 0..at {
            assert!(reader.try_next().is_some());
        }
        readers.push((at, reader));
    }
    log.held().let_go();
    assert!(!log.is_let_go(), "its writer would have nowhere to write");
    writer.end(end());
    let all = read(log.follow(None)).await;
    log.held().let_go();
    assert!(log.is_let_go());
    let missed = |at: usize, counted: usize| Behind {
        entries: (all.len() - at) as u64,
        bytes: log.bytes() - before[counted].0,
        token_events: before[counted].1,
    };
    for (at, mut reader) in readers {
        // The 64 that it is in the middle of are its own.
        let to = at.next_multiple_of(64).min(all.len());
        for expected in &all[at..to] {
            let (position, entry) = reader.next().await.unwrap();
            assert_eq!(&(position, shown(&entry)), expected, "from {at}");
        }
        assert!(reader.next().await.is_none() && reader.try_next().is_none(), "from {at}");
        assert_eq!(reader.behind(), (to < all.len()).then(|| missed(to, to)), "from {at}");
    }
    assert_eq!(log.follow(None).behind(), Some(missed(0, 0)));
    assert_eq!(follow(130).behind(), Some(missed(130, 128)), "who comes later counts in steps");
    assert!(log.terminal().is_some());
    let held = log.held();
    assert!(held.is_held());
    drop(log);
    assert!(!held.is_held());
}

/// STREAM-015
#[tokio::test]
async fn a_log_that_is_not_let_go_of_leaves_nobody_behind() {
    let (log, mut writer) = TaskLog::new(1 << 20);
    writer.chunk(chunk("a")).unwrap();
    writer.end(end());
    let mut reader = log.follow(None);
    assert_eq!(reader.behind(), None);
    while reader.next().await.is_some() {}
    log.held().let_go();
    assert_eq!(reader.behind(), None, "it had read all");
}

#[tokio::test]
async fn readers_are_counted_while_they_are_attached() {
    let (log, _writer) = TaskLog::new(1 << 20);
    let readers = log.readers();
    let (first, second) = (log.follow(None), log.follow(None));
    assert_eq!(*readers.borrow(), Readers { attached: 2, ever: 2 });
    drop(first);
    drop(second);
    assert_eq!(*readers.borrow(), Readers { attached: 0, ever: 2 });
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_is_given_up_loses_nothing() {
    let (log, mut writer) = TaskLog::new(1 << 20);
    let mut follower = log.follow(None);
    let wait = tokio::time::timeout(Duration::from_millis(1), follower.next());
    assert!(wait.await.is_err());
    writer.chunk(chunk("a")).unwrap();
    assert_eq!(shown(&follower.next().await.unwrap().1), "a#Some(0)");
    assert!(follower.try_next().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_readers_at_many_positions_each_see_their_whole_suffix() {
    const CHUNKS: u64 = 3_000;
    let (log, mut writer) = TaskLog::new(64 << 20);
    let reader = |from: u64| {
        let log = log.clone();
        async move { (from, read(log.follow(from.checked_sub(1).and_then(|p| position(&p.to_string())))).await) }
    };
    let early: Vec<_> = (0..32).map(|n| tokio::spawn(reader(n * 96))).collect();
    let write = tokio::task::spawn_blocking(move || {
        for n in 0..CHUNKS {
            writer.chunk(chunk(&n.to_string())).unwrap();
        }
        writer.end(end());
    });
    let late: Vec<_> = (0..32).map(|n| tokio::spawn(reader(n * 95))).collect();
    write.await.unwrap();
    for reader in early.into_iter().chain(late) {
        let (from, seen) = tokio::time::timeout(Duration::from_secs(30), reader).await.unwrap().unwrap();
        let expected = (from..CHUNKS).map(|n| format!("{n}#Some({n})")).chain(["end".to_owned()]);
        assert!(seen.iter().map(|(_, shown)| shown.clone()).eq(expected), "from {from}");
    }
    assert_eq!(log.readers().borrow().attached, 0);
}

proptest! {
    #[test]
    fn any_reader_from_any_position_sees_exactly_the_suffix(
        texts in proptest::collection::vec("[a-c]{0,2}", 0..200),
        from in 0..210_u64,
        attach_at in 0..200_usize,
    ) {
        let (log, mut writer) = TaskLog::new(64 << 20);
        let mut follower = None;
        let mut expected = Vec::new();
        let mut next_index = 0;
        let mut seen = Vec::new();
        for (n, text) in texts.iter().enumerate() {
            if n == attach_at.min(texts.len() - 1) {
                follower = Some(log.follow(from.checked_sub(1).and_then(|p| position(&p.to_string()))));
            }
            let index = (!text.is_empty()).then_some(next_index);
            next_index += u64::from(index.is_some());
            expected.push(format!("{text}#{index:?}"));
            prop_assert_eq!(writer.chunk(chunk(text)).unwrap(), index);
            // Reads along with the writer half of the time.
            if n % 2 == 0 && let Some(follower) = &mut follower {
                seen.extend(follower.try_next());
            }
        }
        writer.end(end());
        expected.push("end".to_owned());
        let mut follower = follower
            .unwrap_or_else(|| log.follow(from.checked_sub(1).and_then(|p| position(&p.to_string()))));
        while let Some(next) = follower.try_next() {
            seen.push(next);
        }
        let suffix: Vec<String> = expected.into_iter().skip(usize::try_from(from).unwrap()).collect();
        let seen: Vec<(Position, Arc<Entry>)> = seen;
        prop_assert_eq!(seen.iter().map(|(_, entry)| shown(entry)).collect::<Vec<_>>(), suffix);
    }
}

proptest! {
    /// `Last-Event-ID` comes from anywhere: what is not a position is refused, and what is one names
    /// the same event in every spelling of it.
    #[test]
    fn any_text_is_a_position_or_is_refused(text in "\\PC{0,30}|[0-9]{0,22}|[-+ ]?[0-9]{1,5}[ \r\n]?|[0-9]{1,3}-[0-9]{1,3}") {
        match text.parse::<Position>() {
            Ok(position) if text.contains('-') => {
                // This log never had a second process.
                let (log, mut writer) = TaskLog::new(1 << 20);
                writer.chunk(chunk("a")).unwrap();
                prop_assert!(!log.gave_out(position));
                prop_assert_eq!(position.to_string().parse::<Position>(), Ok(position));
                let mut put = Vec::new();
                position.put(&mut put);
                prop_assert_eq!(put, position.to_string().into_bytes());
            }
            Ok(position) => {
                prop_assert!(text.bytes().all(|b| b.is_ascii_digit()));
                let number: u64 = text.parse().unwrap();
                prop_assert_eq!(position.to_string(), number.to_string());
                let (log, mut writer) = TaskLog::new(1 << 20);
                writer.chunk(chunk("a")).unwrap();
                prop_assert_eq!(log.gave_out(position), number == 0);
                prop_assert_eq!(log.follow(Some(position)).try_next().is_some(), false);
            }
            Err(error) => {
                let number = text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u64>().is_ok();
                prop_assert!(!number, "{error}");
                prop_assert!(error.to_string().len() < 1_000);
            }
        }
    }
}

/// STREAM-013
#[tokio::test]
async fn a_log_that_is_put_off_lets_its_readers_go_and_holds_nothing_of_it() {
    let (log, mut writer) = TaskLog::new(usize::MAX);
    writer.chunk(chunk("a")).unwrap();
    let mut follower = log.follow(None);
    let reads = tokio::spawn(async move {
        let mut read = Vec::new();
        while let Some((position, _)) = follower.next().await {
            read.push(position);
        }
        read
    });
    // It has read what there is, and waits.
    tokio::task::yield_now().await;
    writer.put_off(StreamError {
        code: ErrorCode::Interrupted,
        message: "later".to_owned(),
        retriable: true,
        retry_after_ms: None,
        hint: None,
        tokens_sent: 0,
    });
    let read = tokio::time::timeout(Duration::from_secs(60), reads).await.unwrap().unwrap();
    assert_eq!((read.len(), log.entries_len()), (1, 1));
    assert!(log.terminal().is_none());
    let told = log.put_off().unwrap();
    assert!(matches!(&*told, Entry::Error(error) if error.tokens_sent == 1), "{told:?}");
    assert!(log.follow(Some(read[0])).next().await.is_none(), "who comes now is let go at once");
}
