//! A connection that gives up on a peer that does not take what is written to it.
//!
//! A stuck reader costs nothing but its connection: its task's log buffers, its engine slot is not
//! held up. What it costs is bounded here, by time; how much it buffers, by the socket's send buffer
//! and hyper's write buffer.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// Pieces that are shorter than this together are put into one: an event with its framing, which hyper
/// hands over in three, costs less to copy than the kernel takes to gather it.
const GATHERED: usize = 1024;

/// A stream whose writes must make progress. In the order in which it stands here: what each write looks at
/// lies beside what it writes to.
#[repr(C)]
pub(super) struct Patient<S> {
    inner: S,
    waiting: bool,
    /// Made at the first write that has to wait, and used again; most connections never need it.
    timer: Option<Pin<Box<Sleep>>>,
    limit: Duration,
    evictions: Counter,
}

impl<S: AsyncWrite + Unpin> Patient<S> {
    /// Writes that wait longer than `limit` fail and are counted.
    pub(super) fn new(inner: S, limit: Duration, evictions: Counter) -> Self {
        Self { inner, limit, evictions, timer: None, waiting: false }
    }

    /// Lets a result through; one that has to wait starts the clock, or finds it run out.
    fn watched<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.waiting = false;
            return result;
        }
        let until = Instant::now() + self.limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        if !std::mem::replace(&mut self.waiting, true) {
            timer.as_mut().reset(until);
        }
        ready!(timer.as_mut().poll(cx));
        self.waiting = false;
        self.evictions.inc();
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer reads nothing")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.watched(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut gathered = [0; GATHERED];
        let result = match gather(bufs, &mut gathered) {
            Some(bytes) => Pin::new(&mut self.inner).poll_write(cx, bytes),
            None => Pin::new(&mut self.inner).poll_write_vectored(cx, bufs),
        };
        self.watched(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// All pieces in one, if they fit.
fn gather<'a>(pieces: &[io::IoSlice<'_>], space: &'a mut [u8]) -> Option<&'a [u8]> {
    let mut length = 0;
    for piece in pieces {
        let end = length + piece.len();
        space.get_mut(length..end)?.copy_from_slice(piece);
        length = end;
    }
    Some(&space[..length])
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const LIMIT: Duration = Duration::from_secs(20);

    /// STREAM-010
    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_nothing_is_let_go_and_counted() {
        let (ours, _theirs) = tokio::io::duplex(16);
        let evictions = Counter::default();
        let mut patient = Patient::new(ours, LIMIT, evictions.clone());
        let began = Instant::now();
        let error = patient.write_all(&[0; 64]).await.unwrap_err();
        assert_eq!((error.kind(), began.elapsed()), (io::ErrorKind::TimedOut, LIMIT));
        assert_eq!(evictions.get(), 1);
    }

    /// STREAM-010
    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_that_takes_something_stays() {
        let (ours, mut theirs) = tokio::io::duplex(16);
        let evictions = Counter::default();
        let mut patient = Patient::new(ours, LIMIT, evictions.clone());
        let reader = tokio::spawn(async move {
            let mut byte = [0];
            for _ in 0..64 {
                tokio::time::sleep(LIMIT - Duration::from_secs(1)).await;
                theirs.read_exact(&mut byte).await.unwrap();
            }
        });
        patient.write_all(&[0; 64]).await.unwrap();
        reader.await.unwrap();
        assert_eq!(evictions.get(), 0);
    }

    #[tokio::test]
    async fn pieces_are_written_as_they_follow_each_other_few_or_many() {
        for lengths in [vec![0], vec![3, 0, 200], vec![1023, 1], vec![1024, 1], vec![5000, 2, 9]] {
            let pieces: Vec<Vec<u8>> =
                lengths.iter().enumerate().map(|(n, len)| vec![n as u8; *len]).collect();
            let slices: Vec<_> = pieces.iter().map(|piece| io::IoSlice::new(piece)).collect();
            let (ours, mut theirs) = tokio::io::duplex(1 << 16);
            let mut patient = Patient::new(ours, LIMIT, Counter::default());
            let written = std::future::poll_fn(|cx| Pin::new(&mut patient).poll_write_vectored(cx, &slices))
                .await
                .unwrap();
            drop(patient);
            let mut seen = Vec::new();
            theirs.read_to_end(&mut seen).await.unwrap();
            assert_eq!(seen, pieces.concat()[..written], "{lengths:?}");
            assert!(written > 0 || lengths == [0]);
        }
    }
}
