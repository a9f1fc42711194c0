//! The body of an answer, read by whoever reads its tokens.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::coop::has_budget_remaining;
use tokio::time::{Instant, Sleep};

use super::idle::Idle;
use super::{SILENCE, Unanswered};
use crate::framing::Framing;

/// Read at once.
const READ_BYTES: usize = 8 << 10;

/// The body of an [`Answer`](super::Answer).
pub(crate) struct Body {
    stream: Option<TcpStream>,
    framing: Framing,
    /// Came with the head.
    early: Vec<u8>,
    silence: Silence,
    /// Where the connection goes when the body is over; `None` when the engine closes it then.
    idle: Option<Idle>,
}

/// Tells a dead connection without reading a clock for each piece: the timer finds whether anything was
/// heard since it was set.
struct Silence {
    timer: Pin<Box<Sleep>>,
    heard: bool,
    /// Whom `timer` wakes; it is asked again when that is another, or it is time.
    waiting: Option<Waker>,
}

impl Body {
    /// What comes on `stream`, of which `early` came with the head. The connection goes to `idle` when the
    /// body is over.
    pub(super) fn new(stream: TcpStream, framing: Framing, early: Vec<u8>, idle: Option<Idle>) -> Self {
        let silence = Silence { timer: Box::pin(tokio::time::sleep(SILENCE)), heard: true, waiting: None };
        let mut body = Self { stream: Some(stream), framing, early, silence, idle };
        body.settle(body.early.is_empty());
        body
    }

    /// Whether all of it was read.
    pub(crate) fn is_over(&self) -> bool {
        self.framing.is_over()
    }

    /// Reads what there is and gives it to `take`, in pieces. False at the end.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        mut take: impl FnMut(&[u8]),
    ) -> Poll<Result<bool, Unanswered>> {
        if !self.early.is_empty() {
            let early = std::mem::take(&mut self.early);
            self.unframe(&early, take)?;
            return Poll::Ready(Ok(true));
        }
        if self.framing.is_over() {
            return Poll::Ready(Ok(false));
        }
        let Some(stream) = &mut self.stream else { return Poll::Ready(Ok(false)) };
        let mut space = [MaybeUninit::uninit(); READ_BYTES];
        let mut buffer = ReadBuf::uninit(&mut space);
        match Pin::new(stream).poll_read(cx, &mut buffer) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Err(Unanswered::Broken(error))),
            Poll::Pending => {
                ready!(self.silence.poll(cx));
                return Poll::Ready(Err(Unanswered::Silent));
            }
        }
        self.silence.heard = true;
        if !buffer.filled().is_empty() {
            self.unframe(buffer.filled(), &mut take)?;
            return Poll::Ready(Ok(true));
        }
        self.stream = None;
        if self.framing.may_close() {
            return Poll::Ready(Ok(false));
        }
        Poll::Ready(Err(Unanswered::Broken(io::ErrorKind::UnexpectedEof.into())))
    }

    /// Reads up to `limit` bytes to the end; `None` for a body that is larger.
    pub(crate) async fn whole(mut self, limit: usize) -> Result<Option<Vec<u8>>, Unanswered> {
        let (mut whole, mut large) = (Vec::new(), false);
        let mut keep = |bytes: &[u8]| {
            large = large || whole.len() + bytes.len() > limit;
            if !large {
                whole.extend_from_slice(bytes);
            }
            large
        };
        loop {
            let mut over = false;
            let more = poll_fn(|cx| self.poll_read(cx, |bytes| over = keep(bytes))).await?;
            if over {
                return Ok(None);
            }
            if !more {
                return Ok(Some(whole));
            }
        }
    }

    fn unframe(&mut self, mut bytes: &[u8], mut take: impl FnMut(&[u8])) -> Result<(), Unanswered> {
        while let Some(piece) = self.framing.take(&mut bytes).map_err(|_| Unanswered::NotHttp)? {
            take(piece);
        }
        self.settle(bytes.is_empty());
        Ok(())
    }

    /// Once it is over its connection is the next request's, if nothing came behind it.
    fn settle(&mut self, nothing_behind: bool) {
        if self.framing.is_over()
            && let Some(stream) = self.stream.take()
            && let Some(idle) = self.idle.take()
            && nothing_behind
        {
            idle.keep(stream);
        }
    }
}

impl Silence {
    /// Ready when nothing was heard for too long.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let waits = self.waiting.as_ref().is_some_and(|waiting| waiting.will_wake(cx.waker()));
        if waits && !self.timer.is_elapsed() {
            return Poll::Pending;
        }
        loop {
            self.waiting = None;
            if self.timer.as_mut().poll(cx).is_pending() {
                // A task that has used up its turn is not heard by the timer, and comes again.
                self.waiting = has_budget_remaining().then(|| cx.waker().clone());
                return Poll::Pending;
            }
            if !std::mem::take(&mut self.heard) {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(Instant::now() + SILENCE);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::time::Duration;

    use tokio::task::coop::consume_budget;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn silence_is_seen_also_where_its_task_had_used_up_its_turn() {
        let timer = Box::pin(tokio::time::sleep(SILENCE));
        let mut silence = Silence { timer, heard: true, waiting: None };
        let (began, mut first) = (Instant::now(), true);
        let over = poll_fn(|cx| {
            while first && has_budget_remaining() {
                let _ = pin!(consume_budget()).poll(cx);
            }
            first = false;
            silence.poll(cx)
        });
        assert!(timeout(Duration::from_hours(1), over).await.is_ok());
        assert_eq!(began.elapsed(), 2 * SILENCE);
    }
}
