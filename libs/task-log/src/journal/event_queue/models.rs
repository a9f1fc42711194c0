//! The interleavings of who appends, who drives, the journal's thread and a close, with up to three switches to
//! another thread where none was needed (`LOOM_MAX_PREEMPTIONS` says another number); run by `cargo xtask loom`.
//! A writer that writes nowhere stands for the files. loom's condition variable never times out: what the
//! thread is not woken for it does not see here, and every wait that would only end by its second is a failure.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;

use loom::future::block_on;
use loom::sync::Mutex;
use loom::thread;
use wire::EngineChunk;

use super::{Appender, EventQueue, Item, SLOW, Turn, Writer, drive, run};
use crate::{Follower, LogWriter, TaskLog};

/// More switches than these take minutes for each further one, and then hours.
const SWITCHES: usize = 3;

fn model(of: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(SWITCHES);
    builder.check(of);
}

/// Remembers what it would have written.
struct Written {
    queue: Arc<EventQueue>,
    /// Numbers of tasks, and places in their logs.
    entries: Vec<(u64, u64)>,
    /// So many turns take long.
    slow: usize,
    sealed: bool,
}

impl Writer for Written {
    fn turn(&mut self) -> Turn {
        assert!(!self.sealed, "nothing is written behind the seal");
        let mut items = Vec::new();
        self.queue.take(&mut items);
        for item in items {
            let Item::Entry { seq, log, at, .. } = item else { continue };
            self.entries.push((seq, at));
            log.publish(at + 1);
        }
        let slow = self.slow > 0;
        self.slow = self.slow.saturating_sub(1);
        Turn { took: if slow { SLOW * 2 } else { SLOW / 2 }, failing: false }
    }

    fn seal(&mut self) {
        self.sealed = true;
    }
}

struct Journal {
    queue: Arc<EventQueue>,
    writer: Arc<Mutex<Written>>,
    thread: thread::JoinHandle<()>,
}

impl Journal {
    fn open(slow: usize) -> Self {
        let queue = Arc::new(EventQueue::default());
        let written = Written { queue: Arc::clone(&queue), entries: Vec::new(), slow, sealed: false };
        let writer = Arc::new(Mutex::new(written));
        let (waiting, writing) = (Arc::clone(&queue), Arc::clone(&writer));
        let thread = thread::spawn(move || run(&waiting, &writing));
        Self { queue, writer, thread }
    }

    fn log(&self, seq: u64) -> (TaskLog, LogWriter) {
        TaskLog::recorded_by(Some(Appender { queue: Arc::clone(&self.queue), seq }), 1 << 20)
    }

    /// Drives until something has come about, and no longer.
    async fn drive_until<T>(&self, until: impl Future<Output = T>) -> T {
        let (mut driving, mut until) = (pin!(drive(&self.queue, &self.writer)), pin!(until));
        poll_fn(|cx| {
            assert!(driving.as_mut().poll(cx).is_pending());
            until.as_mut().poll(cx)
        })
        .await
    }

    /// Closes it; what was written.
    fn close(self) -> Vec<(u64, u64)> {
        self.queue.close();
        self.thread.join().unwrap();
        let mut left = Vec::new();
        self.queue.take(&mut left);
        assert!(left.is_empty(), "what had come is not written: {left:?}");
        let mut written = self.writer.lock().unwrap();
        assert!(written.sealed);
        std::mem::take(&mut written.entries)
    }
}

/// Two entries: a piece, and the end that a writer leaves that is dropped.
fn speak(mut writer: LogWriter) {
    let chunk: EngineChunk = serde_json::from_str(r#"{"text":"a","tokens":[1],"raw":{}}"#).unwrap();
    writer.chunk(chunk).unwrap();
}

/// The next entry's place.
async fn next(follower: &mut Follower) -> Option<String> {
    follower.next().await.map(|(position, _)| position.to_string())
}

async fn rest(follower: &mut Follower) -> Vec<String> {
    let mut seen = Vec::new();
    while let Some(position) = next(follower).await {
        seen.push(position);
    }
    seen
}

/// ORCHD-JOURNAL-011, ORCHD-JOURNAL-012
#[test]
fn the_thread_writes_everything_once_and_in_order_and_its_reader_wakes() {
    model(|| {
        let journal = Journal::open(0);
        let (log, writer) = journal.log(1);
        let speaker = thread::spawn(move || speak(writer));
        assert_eq!(block_on(rest(&mut log.follow(None))), ["0", "1"]);
        speaker.join().unwrap();
        assert_eq!(journal.close(), [(1, 0), (1, 1)]);
    });
}

/// ORCHD-JOURNAL-012
#[test]
fn what_is_left_by_whoever_drives_no_more_the_thread_writes() {
    model(|| {
        let journal = Journal::open(0);
        let (log, writer) = journal.log(1);
        let speaker = thread::spawn(move || speak(writer));
        let mut follower = log.follow(None);
        let first = block_on(journal.drive_until(next(&mut follower)));
        assert_eq!(first.as_deref(), Some("0"));
        assert_eq!(block_on(rest(&mut follower)), ["1"], "nobody drives");
        speaker.join().unwrap();
        assert_eq!(journal.close(), [(1, 0), (1, 1)]);
    });
}

/// ORCHD-JOURNAL-012
#[test]
fn after_a_slow_write_whoever_drives_waits_for_nothing_that_is_the_threads() {
    model(|| {
        let journal = Journal::open(1);
        let (log, writer) = journal.log(1);
        let speaker = thread::spawn(move || speak(writer));
        let mut follower = log.follow(None);
        assert_eq!(block_on(journal.drive_until(rest(&mut follower))), ["0", "1"]);
        speaker.join().unwrap();
        assert_eq!(journal.close(), [(1, 0), (1, 1)]);
    });
}

/// ORCHD-JOURNAL-011, ORCHD-JOURNAL-012
#[test]
fn what_two_tasks_say_is_written_once_and_each_in_its_order() {
    model(|| {
        let journal = Journal::open(0);
        let ((one, first), (other, second)) = (journal.log(1), journal.log(2));
        let speaker = thread::spawn(move || speak(first));
        speak(second);
        assert_eq!(block_on(rest(&mut one.follow(None))), ["0", "1"]);
        assert_eq!(block_on(rest(&mut other.follow(None))), ["0", "1"]);
        speaker.join().unwrap();
        let written = journal.close();
        assert_eq!(written.len(), 4);
        for seq in [1, 2] {
            let own: Vec<_> = written.iter().filter(|(of, _)| *of == seq).map(|(_, at)| *at).collect();
            assert_eq!(own, [0, 1]);
        }
    });
}

/// ORCHD-JOURNAL-002, ORCHD-JOURNAL-011
#[test]
fn a_close_loses_nothing_that_came_before_it_and_hides_nothing_that_comes_after() {
    model(|| {
        let journal = Journal::open(0);
        let (before, writer) = journal.log(1);
        speak(writer);
        let (beside, writer) = journal.log(2);
        let speaker = thread::spawn(move || speak(writer));
        let written = journal.close();
        speaker.join().unwrap();
        assert_eq!(written[..2], [(1, 0), (1, 1)]);
        assert!([(2, 0), (2, 1)].starts_with(&written[2..]), "{written:?}");
        for log in [before, beside] {
            assert_eq!(block_on(rest(&mut log.follow(None))), ["0", "1"]);
        }
    });
}
