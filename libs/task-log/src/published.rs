//! How many entries of a log may be read, and who waits for more of them. On the way of every token: waiting
//! and waking take one lock each, and neither allocates once a log has had its first reader.

use std::future::poll_fn;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
#[cfg(not(loom))]
use std::sync::{Mutex, MutexGuard, atomic::AtomicU64};
use std::task::{Poll, Waker};

// The models try every interleaving of these.
#[cfg(loom)]
use loom::sync::{Mutex, MutexGuard, atomic::AtomicU64};
use slab::Slab;

#[derive(Debug, Default)]
pub(crate) struct Published {
    len: AtomicU64,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    wakers: Slab<Waker>,
    /// How often all of them were woken: a place taken before is nobody's any more.
    round: u64,
}

/// A place among those that wait; to be [given back](Published::leave).
#[derive(Debug, Default)]
pub(crate) struct Place(Option<(u64, usize)>);

impl Published {
    /// Entries that may be read.
    pub(crate) fn len(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    /// The first `len` entries may be read; fewer than may be already change nothing.
    pub(crate) fn up_to(&self, len: u64) {
        if self.len.fetch_max(len, Ordering::AcqRel) < len {
            self.wake();
        }
    }

    /// Has everybody who waits look again.
    pub(crate) fn wake(&self) {
        let mut waiting = self.lock();
        waiting.round += 1;
        let mut woken = waiting.wakers.drain();
        // Nearly always there is one, and a `Vec` of none allocates nothing.
        let (first, others) = (woken.next(), woken.collect::<Vec<Waker>>());
        // Whoever is woken may be the last to hold a reader, which gives its place back.
        drop(waiting);
        first.into_iter().chain(others).for_each(Waker::wake);
    }

    /// Has `waker` woken when there is more. Whoever waits must look again after this: what came before is not
    /// told.
    pub(crate) fn wait(&self, place: &mut Place, waker: &Waker) {
        let mut waiting = self.lock();
        let round = waiting.round;
        let taken = place.0.filter(|(taken_in, _)| *taken_in == round);
        let before = match taken.and_then(|(_, key)| waiting.wakers.get_mut(key)) {
            Some(there) if there.will_wake(waker) => None,
            Some(there) => Some(std::mem::replace(there, waker.clone())),
            None => {
                place.0 = Some((round, waiting.wakers.insert(waker.clone())));
                None
            }
        };
        drop(waiting);
        // Not under the lock: see above.
        drop(before);
    }

    /// Waits until `done`, which is asked again whenever there is more.
    pub(crate) async fn until(&self, done: impl Fn() -> bool) {
        struct Waits<'a>(&'a Published, Place);
        impl Drop for Waits<'_> {
            fn drop(&mut self) {
                self.0.leave(&mut self.1);
            }
        }
        let mut waits = Waits(self, Place::default());
        poll_fn(|cx| {
            if done() {
                return Poll::Ready(());
            }
            self.wait(&mut waits.1, cx.waker());
            if done() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Gives a place back.
    pub(crate) fn leave(&self, place: &mut Place) {
        let Some((round, key)) = place.0.take() else { return };
        let mut waiting = self.lock();
        let waker = (waiting.round == round).then(|| waiting.wakers.try_remove(key)).flatten();
        drop(waiting);
        // Not under the lock: see above.
        drop(waker);
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn reader() -> (Arc<Count>, Waker) {
        let count = Arc::new(Count::default());
        (Arc::clone(&count), Waker::from(count))
    }

    /// STREAM-005
    #[test]
    fn each_that_waits_is_woken_once_by_more_and_by_nothing_else() {
        let published = Published::default();
        let readers = [reader(), reader(), reader()];
        let mut places = [const { Place(None) }; 3];
        let woken = || readers.each_ref().map(|(count, _)| count.0.load(Ordering::SeqCst));
        for ((_, waker), place) in readers.iter().zip(&mut places) {
            published.wait(place, waker);
            // Waiting twice is waiting once.
            published.wait(place, waker);
        }
        published.leave(&mut places[1]);
        published.up_to(2);
        assert_eq!((published.len(), woken()), (2, [1, 0, 1]));
        published.up_to(3);
        assert_eq!(woken(), [1, 0, 1], "who did not wait again is not woken again");
        published.wait(&mut places[2], &readers[2].1);
        published.up_to(3);
        published.up_to(1);
        assert_eq!((published.len(), woken()), (3, [1, 0, 1]), "nothing more came");
        published.wake();
        assert_eq!(woken(), [1, 0, 2]);
    }

    /// STREAM-005
    #[test]
    fn a_place_of_an_earlier_round_is_nobodys() {
        let published = Published::default();
        let (old, new) = (reader(), reader());
        let (mut old_place, mut new_place) = (Place::default(), Place::default());
        published.wait(&mut old_place, &old.1);
        published.up_to(1);
        published.wait(&mut new_place, &new.1);
        // It had the same place.
        published.leave(&mut old_place);
        published.up_to(2);
        assert_eq!([&old, &new].map(|(count, _)| count.0.load(Ordering::SeqCst)), [1, 1]);
    }

    /// STREAM-015
    #[test]
    fn readers_that_come_and_go_leave_nothing_behind() {
        let published = Published::default();
        let (_, waker) = reader();
        for _ in 0..1_000 {
            let mut place = Place::default();
            published.wait(&mut place, &waker);
            published.leave(&mut place);
        }
        assert!(published.lock().wakers.is_empty() && published.lock().wakers.capacity() < 8);
    }
}
