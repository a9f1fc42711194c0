//! Reading a log from any position, as fast or slow as the reader likes.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::log::{Chunk, Store};
use crate::published::Place;
use crate::{Behind, Entry, Position};

/// A reader at its own position. It holds references into the log, never a copy of it.
pub struct Follower {
    store: Arc<Store>,
    /// The one that `next` is in, once it was looked up.
    chunk: Option<Arc<Chunk>>,
    next: u64,
    /// Entries that may be read, as far as this reader has looked.
    published: u64,
    /// Where it waits for more.
    place: Place,
}

impl Follower {
    pub(crate) fn new(store: Arc<Store>, next: u64) -> Self {
        store.readers.send_modify(|readers| {
            readers.attached += 1;
            readers.ever += 1;
        });
        // In the middle of a chunk it holds that, as one that has read so far does: see `behind`.
        let chunk = if Chunk::is_first(next) { None } else { store.chunk_at(next) };
        Self { store, chunk, next, published: 0, place: Place::default() }
    }

    /// The next entry; waits for it. `None` once the terminal entry was read, the log was put off or let go
    /// of, or at once when the log had ended at or before the position asked for. Cancel-safe: an entry is
    /// taken only when it is returned.
    pub async fn next(&mut self) -> Option<(Position, Arc<Entry>)> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The same for a stream written by hand.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<(Position, Arc<Entry>)>> {
        let mut waits = false;
        loop {
            self.published = self.store.published.len();
            if let Some(found) = self.take() {
                return Poll::Ready(Some(found));
            }
            if self.store.ends_at(self.published) {
                return Poll::Ready(None);
            }
            // What is published from here on wakes; what was before is seen by looking again.
            if std::mem::replace(&mut waits, true) {
                return Poll::Pending;
            }
            self.store.published.wait(&mut self.place, cx.waker());
        }
    }

    /// The next entry if it is there already: for writing several events at once.
    pub fn try_next(&mut self) -> Option<(Position, Arc<Entry>)> {
        if self.next >= self.published {
            self.published = self.store.published.len();
        }
        self.take()
    }

    /// What it has read of the 64 entries that it is in the middle of, also when the log was let go of.
    pub fn held(&self) -> impl Iterator<Item = &Arc<Entry>> {
        let read = Chunk::first_beside(self.next)..self.next;
        self.chunk.iter().flat_map(move |chunk| read.clone().filter_map(|at| chunk.get(at)))
    }

    /// What it has missed: of a log that was let go of before it had read all, once nothing comes any more.
    #[must_use]
    pub fn behind(&self) -> Option<Behind> {
        self.store.behind(self.next)
    }

    fn take(&mut self) -> Option<(Position, Arc<Entry>)> {
        if self.next >= self.published {
            return None;
        }
        if self.chunk.is_none() {
            self.chunk = self.store.chunk_at(self.next);
        }
        let entry = Arc::clone(self.chunk.as_ref()?.get(self.next)?);
        let position = Position { life: self.store.lives.of(self.next), at: self.next };
        if Chunk::is_last(self.next) {
            self.chunk = None;
        }
        self.next += 1;
        Some((position, entry))
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.store.published.leave(&mut self.place);
        self.store.readers.send_modify(|readers| readers.attached -= 1);
    }
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower").field("next", &self.next).finish_non_exhaustive()
    }
}
