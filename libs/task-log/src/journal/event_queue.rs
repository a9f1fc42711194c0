//! The way from a task's log to whoever writes, and whose turn it is.
//!
//! Whoever [drives](drive) the journal writes, on the thread where the entries come from and the readers
//! wait, so that a token wakes no other one; a thread of its own writes while nobody drives, for a while
//! after a write that took long, and as long as the disk refuses: a disk that stalls must not stall who
//! drives a second time.

#[cfg(all(test, loom))]
mod models;

use std::future::poll_fn;
use std::sync::{Arc, PoisonError, Weak};
#[cfg(not(loom))]
use std::sync::{Condvar, Mutex, MutexGuard};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

// The models try every interleaving of these.
#[cfg(loom)]
use loom::sync::{Condvar, Mutex, MutexGuard};

use super::committer::RETRY_EVERY;
use super::inbox::Ended;
use crate::Entry;
use crate::log::Store;

/// What writes what has come; one for both who may have it do so.
pub(crate) trait Writer {
    /// Writes it; readers may see it then.
    fn turn(&mut self) -> Turn;
    /// Nothing comes any more.
    fn seal(&mut self);
}

/// One turn of writing.
#[derive(Debug)]
pub(crate) struct Turn {
    pub(crate) took: Duration,
    /// Something is left that has to be tried again.
    pub(crate) failing: bool,
}

/// Held by whoever has it write.
pub(crate) type WriterLock<W> = Mutex<W>;

/// What whoever writes is told.
#[derive(Debug)]
pub(crate) enum Item {
    /// A log that was read back; it can be written anew from memory.
    Restored { seq: u64, log: Weak<Store> },
    /// A log has an entry more.
    Entry { seq: u64, log: Arc<Store>, at: u64, entry: Arc<Entry> },
    /// A task has ended; its terminal entry came before.
    Ended(Ended),
    /// A task is not kept any more.
    Forget { seq: u64 },
    /// Nor what its readers hold of it; it was forgotten before.
    LetGo { log: Arc<Store> },
    /// A file is on disk up to here.
    Synced { file: u64, length: u64 },
    /// A file's sync failed: nobody knows what of it since the last one is on disk, or will ever be.
    Lost { file: u64 },
}

/// A write that takes longer is not one into memory.
const SLOW: Duration = Duration::from_millis(5);
/// How long the thread writes after one.
const AFTER_SLOW: Duration = Duration::from_secs(30);

/// The way to whoever writes.
#[derive(Debug, Default)]
pub(crate) struct EventQueue {
    waiting: Mutex<Waiting>,
    thread: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    items: Vec<Item>,
    /// Somebody drives.
    driven: bool,
    /// Wakes whoever drives, while that waits.
    driver: Option<Waker>,
    /// Until when the thread writes all the same.
    slow_until: Option<Instant>,
    /// What was not written is to be tried again, also when nothing else comes.
    failing: bool,
    closed: bool,
}

/// What the thread is to do.
enum Wait {
    /// Write what there is; what failed before may be due, too.
    Write,
    /// Nothing: somebody drives.
    Driven,
    /// Nothing more.
    Over,
}

/// A log's way to whoever writes.
#[derive(Debug)]
pub(crate) struct Appender {
    pub(crate) queue: Arc<EventQueue>,
    pub(crate) seq: u64,
}

impl Appender {
    pub(crate) fn appended(&self, log: &Arc<Store>, at: u64, entry: Arc<Entry>) {
        self.queue.push(Item::Entry { seq: self.seq, log: Arc::clone(log), at, entry });
    }
}

impl EventQueue {
    /// Hands over; never waits for the disk. What comes after the close is not written.
    pub(crate) fn push(&self, item: Item) {
        let mut waiting = self.lock();
        if waiting.closed {
            drop(waiting);
            if let Item::Entry { log, at, .. } = item {
                log.publish(at + 1);
            }
            return;
        }
        // All there is is taken under this lock: whoever writes sleeps only when nothing was there.
        let first = waiting.items.is_empty();
        waiting.items.push(item);
        if !first {
            return;
        }
        if waiting.is_driven() {
            wake_driver(waiting);
        } else {
            drop(waiting);
            self.thread.notify_one();
        }
    }

    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.thread.notify_one();
    }

    /// Waits until there is something for the thread; a second at the latest.
    fn wait(&self) -> Wait {
        let mut waiting = self.lock();
        if waiting.is_driven() && !waiting.items.is_empty() {
            // It came while it was for us, and whoever pushes behind it tells nobody.
            wake_driver(waiting);
            waiting = self.lock();
        }
        if !waiting.closed && (waiting.items.is_empty() || waiting.is_driven()) {
            let waited = self.thread.wait_timeout(waiting, RETRY_EVERY);
            waiting = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if waiting.closed && waiting.items.is_empty() {
            return Wait::Over;
        }
        if waiting.closed || !waiting.is_driven() { Wait::Write } else { Wait::Driven }
    }

    /// What has come, into `into`.
    pub(crate) fn take(&self, into: &mut Vec<Item>) {
        std::mem::swap(&mut self.lock().items, into);
    }

    /// Somebody begins to drive, or stops.
    fn set_driven(&self, driven: bool) {
        let mut waiting = self.lock();
        waiting.driven = driven;
        let waker = waiting.driver.take();
        drop(waiting);
        // Not under the lock: whoever drives may be gone with it.
        drop(waker);
        // What came before was not told to it; to whoever drives the queue tells it itself.
        self.thread.notify_one();
    }

    /// Waits until there is something for whoever drives.
    async fn for_driver(&self) {
        poll_fn(|cx| {
            let mut waiting = self.lock();
            if !waiting.items.is_empty() {
                if waiting.is_driven() {
                    return Poll::Ready(());
                }
                // It came while it was for whoever drives, and whoever pushes behind it tells nobody.
                self.thread.notify_one();
            }
            let known = waiting.driver.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
            let before = if known { None } else { waiting.driver.replace(cx.waker().clone()) };
            drop(waiting);
            drop(before);
            Poll::Pending
        })
        .await;
    }

    /// A turn is over.
    fn wrote(&self, turn: &Turn) {
        let mut waiting = self.lock();
        waiting.failing = turn.failing;
        if turn.failing || turn.took > SLOW {
            waiting.slow_until = Some(Instant::now() + AFTER_SLOW);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn is_driven(&mut self) -> bool {
        if self.slow_until.is_some_and(|until| until <= Instant::now()) {
            self.slow_until = None;
        }
        self.driven && !self.failing && self.slow_until.is_none()
    }
}

/// Whoever is woken may be gone with its waker, and stops to drive then: not under the lock.
fn wake_driver(mut waiting: MutexGuard<'_, Waiting>) {
    let waker = waiting.driver.take();
    drop(waiting);
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// Writes what comes, where this is polled, until it is dropped. To be polled by one at a time.
pub(crate) async fn drive(queue: &EventQueue, writer: &WriterLock<impl Writer>) {
    struct Driving<'a>(&'a EventQueue);
    impl Drop for Driving<'_> {
        fn drop(&mut self) {
            self.0.set_driven(false);
        }
    }
    queue.set_driven(true);
    let _driving = Driving(queue);
    loop {
        queue.for_driver().await;
        // Whoever was woken together with who wakes us appends first: one write for all of it.
        behind_the_others().await;
        turn(queue, writer);
    }
}

/// Lets whatever is ready run first. Unlike tokio's `yield_now` it does not ask the kernel for more first.
async fn behind_the_others() {
    let mut asked = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut asked, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Writes what comes while nobody drives, until nothing comes any more.
pub(crate) fn run(queue: &EventQueue, writer: &WriterLock<impl Writer>) {
    loop {
        match queue.wait() {
            Wait::Write => turn(queue, writer),
            Wait::Driven => {}
            Wait::Over => return lock(writer).seal(),
        }
    }
}

/// Takes and writes under one lock, so that what two of them take is written as it came.
fn turn(queue: &EventQueue, writer: &WriterLock<impl Writer>) {
    let mut writer = lock(writer);
    let turn = writer.turn();
    queue.wrote(&turn);
}

fn lock<W>(writer: &WriterLock<W>) -> MutexGuard<'_, W> {
    writer.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::{Context, Wake};

    use super::*;

    fn turn(took: Duration, failing: bool) -> Turn {
        Turn { took, failing }
    }

    #[derive(Default)]
    struct Told(AtomicBool);

    impl Wake for Told {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    /// ORCHD-JOURNAL-012
    #[test]
    fn after_a_slow_write_the_thread_writes_for_a_while_and_then_the_driver_again() {
        let queue = EventQueue::default();
        queue.set_driven(true);
        assert!(queue.lock().is_driven());
        queue.wrote(&turn(SLOW * 2, false));
        assert!(!queue.lock().is_driven());
        queue.push(Item::Forget { seq: 1 });
        assert!(matches!(queue.wait(), Wait::Write), "what comes is the thread's");
        // The time ends before the thread takes it: the driver, which waits, must hear of it.
        let told = Arc::new(Told::default());
        let (waker, mut driver) = (Waker::from(Arc::clone(&told)), pin!(queue.for_driver()));
        let mut poll = || driver.as_mut().poll(&mut Context::from_waker(&waker));
        assert!(poll().is_pending());
        queue.lock().slow_until = Some(Instant::now());
        assert!(matches!(queue.wait(), Wait::Driven));
        assert!(told.0.load(Ordering::SeqCst) && poll().is_ready());
    }

    /// ORCHD-JOURNAL-012
    #[test]
    fn what_was_not_written_is_the_threads_until_it_is() {
        let queue = EventQueue::default();
        queue.set_driven(true);
        queue.wrote(&turn(Duration::ZERO, true));
        queue.lock().slow_until = Some(Instant::now());
        assert!(matches!(queue.wait(), Wait::Write), "it tries again, although nothing comes");
        queue.wrote(&turn(Duration::ZERO, false));
        queue.lock().slow_until = None;
        assert!(queue.lock().is_driven());
    }
}
