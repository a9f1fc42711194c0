//! What a server says to all its connections. Each of them looks here for every event that it carries, which
//! costs it one read of a place that all share and that changes twice in a process's life.

use std::future::poll_fn;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use slab::Slab;

/// What is said; the later one includes the earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Word {
    /// Finish what you are at.
    Stop = 1,
    /// Be gone.
    Kill = 2,
}

/// Where it is said.
#[derive(Debug, Default)]
pub(super) struct Words {
    /// The last word's number; 0 before the first.
    said: AtomicU8,
    listening: Mutex<Slab<Waker>>,
}

/// One connection's ear.
#[derive(Debug)]
pub(super) struct Listener {
    words: Arc<Words>,
    heard: Option<Word>,
    /// Where among those that listen it is, and who is woken there.
    place: Option<(usize, Waker)>,
}

impl Words {
    pub(super) fn say(&self, word: Word) {
        self.said.fetch_max(word as u8, Ordering::AcqRel);
        let listening = self.lock();
        let wakers: Vec<Waker> = listening.iter().map(|(_, waker)| waker.clone()).collect();
        // Whoever is woken may give its place back.
        drop(listening);
        wakers.into_iter().for_each(Waker::wake);
    }

    pub(super) fn listen(self: &Arc<Self>) -> Listener {
        Listener { words: Arc::clone(self), heard: None, place: None }
    }

    fn last(&self) -> Option<Word> {
        match self.said.load(Ordering::Acquire) {
            0 => None,
            1 => Some(Word::Stop),
            _ => Some(Word::Kill),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Slab<Waker>> {
        self.listening.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener {
    /// The last word, if it was not heard yet; waits for it. Cancel-safe.
    pub(super) async fn next(&mut self) -> Word {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The same for a future written by hand.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Word> {
        loop {
            let last = self.words.last();
            if let Some(word) = last.filter(|_| last > self.heard) {
                self.heard = last;
                return Poll::Ready(word);
            }
            if self.place.as_ref().is_some_and(|(_, known)| known.will_wake(cx.waker())) {
                return Poll::Pending;
            }
            // What is said from here on wakes; what was before is heard by asking again.
            self.leave();
            let waker = cx.waker().clone();
            self.place = Some((self.words.lock().insert(waker.clone()), waker));
        }
    }

    fn leave(&mut self) {
        if let Some((place, _)) = self.place.take() {
            let waker = self.words.lock().try_remove(place);
            // Not under the lock: what it wakes may be gone with it, and that may be another listener.
            drop(waker);
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    /// ORCHD-STOP-001
    #[tokio::test]
    async fn each_word_is_heard_once_by_all_who_listen_and_by_those_who_come_later() {
        let words = Arc::new(Words::default());
        let mut early = words.listen();
        let heard = tokio::spawn(async move { [early.next().await, early.next().await] });
        tokio::task::yield_now().await;
        words.say(Word::Stop);
        let mut late = words.listen();
        assert_eq!(late.next().now_or_never(), Some(Word::Stop));
        assert_eq!(late.next().now_or_never(), None);
        tokio::task::yield_now().await;
        words.say(Word::Kill);
        assert_eq!(late.next().now_or_never(), Some(Word::Kill));
        assert_eq!(heard.await.unwrap(), [Word::Stop, Word::Kill]);
        words.say(Word::Stop);
        assert_eq!(late.next().now_or_never(), None, "it includes the earlier one");
        assert_eq!(words.listen().next().now_or_never(), Some(Word::Kill));
    }

    /// ORCHD-STOP-001
    #[tokio::test]
    async fn whoever_polls_last_is_woken_and_who_is_gone_leaves_no_place() {
        let words = Arc::new(Words::default());
        let mut listener = words.listen();
        assert_eq!(listener.next().now_or_never(), None);
        let heard = tokio::spawn(async move { listener.next().await });
        tokio::task::yield_now().await;
        assert_eq!(words.lock().len(), 1);
        words.say(Word::Kill);
        assert_eq!(heard.await.unwrap(), Word::Kill);
        assert!(words.lock().is_empty());
    }
}
