//! Writing server-sent events: frames, comments, and a response that closes with its stream.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderName, HeaderValue, header};
use http_body::{Body as HttpBody, Frame};
use http_body_util::combinators::UnsyncBoxBody;
use pin_project_lite::pin_project;
use serde::Serialize;
use task_log::Position;
use tokio::task::coop::has_budget_remaining;
use tokio::time::{Instant, Sleep};

/// Sent when nothing else was for a while, so that proxies keep the connection.
pub(super) const KEEPALIVE: Bytes = Bytes::from_static(b": keepalive\n\n");
/// How long "a while" is.
pub(super) const KEEPALIVE_EVERY: Duration = Duration::from_secs(15);
/// Looked at twice in that time, so that no event has to read a clock.
const LOOK_EVERY: Duration = Duration::from_millis(7_500);

/// What is there already goes out in pieces of about this much: a reader that comes back to a long log
/// must not have all of it rendered at once. hyper gathers sixteen pieces into one write and asks for no
/// more, so this also bounds what is held for a reader that takes nothing, to 8 KiB.
pub(super) const WRITE_BYTES: usize = 512;

/// Pieces that a stream with more to say says before the other tasks of its thread have their turn: what hyper
/// gathers for one write. It asks once more in the same turn, so that two writes are made in each.
const TOGETHER: u8 = 16;

const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Tells when a stream has been silent for so long that a keepalive is due: never more than
/// [`KEEPALIVE_EVERY`] after the last that was sent. Costs an event nothing but to say so.
pub(super) struct Silence {
    look: Pin<Box<Sleep>>,
    sent: bool,
    /// Whom `look` wakes; it is asked again when that is another, or it is time.
    waiting: Option<Waker>,
}

impl Silence {
    pub(super) fn new() -> Self {
        Self { look: Box::pin(tokio::time::sleep(LOOK_EVERY)), sent: true, waiting: None }
    }

    /// Something was sent.
    pub(super) fn sent(&mut self) {
        self.sent = true;
    }

    /// Ready when a keepalive is to be sent now.
    pub(super) fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let waits = self.waiting.as_ref().is_some_and(|waiting| waiting.will_wake(cx.waker()));
        if waits && !self.look.is_elapsed() {
            return Poll::Pending;
        }
        loop {
            self.waiting = None;
            if self.look.as_mut().poll(cx).is_pending() {
                // A task that has used up its turn is not heard by the timer, and comes again.
                self.waiting = has_budget_remaining().then(|| cx.waker().clone());
                return Poll::Pending;
            }
            self.look.as_mut().reset(Instant::now() + LOOK_EVERY);
            if !std::mem::replace(&mut self.sent, false) {
                self.sent = true;
                return Poll::Ready(());
            }
        }
    }
}

/// One `/v2` frame.
pub(super) fn frame(id: Option<Position>, event: &str, data: &impl Serialize) -> Bytes {
    let mut out = Vec::with_capacity(128);
    put_frame(&mut out, id, event, data);
    Bytes::from(out)
}

/// Appends one `/v2` frame. JSON holds no raw line break, so the data is always one line.
pub(super) fn put_frame(out: &mut Vec<u8>, id: Option<Position>, event: &str, data: &impl Serialize) {
    if let Some(id) = id {
        out.extend_from_slice(b"id: ");
        id.put(out);
        out.push(b'\n');
    }
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(event.as_bytes());
    out.extend_from_slice(b"\ndata: ");
    put_json(out, data);
    out.extend_from_slice(b"\n\n");
}

/// Appends the frame of a [`wire::event::Token`]: by hand, because it is nearly every frame; the bytes are
/// those of [`put_frame`].
pub(super) fn put_token(out: &mut Vec<u8>, id: Position, text: &str, index: u64) {
    out.extend_from_slice(b"id: ");
    id.put(out);
    out.extend_from_slice(b"\nevent: token\ndata: {\"t\":");
    put_json(out, text);
    out.extend_from_slice(b",\"i\":");
    out.extend_from_slice(itoa::Buffer::new().format(index).as_bytes());
    out.extend_from_slice(b"}\n\n");
}

fn put_json(out: &mut Vec<u8>, data: &(impl Serialize + ?Sized)) {
    let start = out.len();
    // Our own types serialise; a failure would be a bug, and an empty object is honest about it.
    if serde_json::to_writer(&mut *out, data).is_err() {
        out.truncate(start);
        out.extend_from_slice(b"{}");
    }
}

/// One `/v1` frame: data only, because OpenAI's SDKs stumble over ids and event names.
pub(super) fn data_frame(json: &str) -> Bytes {
    Bytes::from(format!("data: {json}\n\n"))
}

pin_project! {
    /// A stream as a body, with nothing in between: what is not there costs no event anything. The count
    /// stands in front, where a stream has what each event touches.
    #[repr(C)]
    struct Pieces<S> {
        // Pieces said since the stream last waited, or let others have their turn.
        together: u8,
        #[pin]
        stream: S,
    }
}

impl<S: Stream<Item = Bytes>> HttpBody for Pieces<S> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.project();
        if *this.together == TOGETHER {
            // A reader that comes back to a long log and takes it as fast as it comes never waits.
            *this.together = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let next = this.stream.poll_next(cx);
        *this.together = if next.is_ready() { *this.together + 1 } else { 0 };
        next.map(|next| next.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// A streaming response.
pub(super) fn response(stream: impl Stream<Item = Bytes> + Send + 'static) -> Response {
    // Of the type that axum would make of it, so that it is taken as it is.
    let body = Body::new(UnsyncBoxBody::new(Pieces { together: 0, stream }));
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;

    use proptest::prelude::*;
    use tokio::task::coop::consume_budget;
    use wire::event::Token;

    use super::*;

    /// STREAM-004
    #[tokio::test(start_paused = true)]
    async fn no_stream_is_silent_for_longer_than_a_keepalive_takes() {
        let mut silence = Silence::new();
        let mut last = Instant::now();
        for ms in [0, 1, 7_499, 7_501, 14_999] {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            silence.sent();
            last = Instant::now();
            poll_fn(|cx| silence.poll_over(cx)).await;
            let silent = last.elapsed();
            assert!((LOOK_EVERY..=KEEPALIVE_EVERY).contains(&silent), "{ms}: {silent:?}");
            last = Instant::now();
        }
        poll_fn(|cx| silence.poll_over(cx)).await;
        assert_eq!(last.elapsed(), KEEPALIVE_EVERY, "in silence they come at that distance");
    }

    /// STREAM-004
    #[tokio::test(start_paused = true)]
    async fn whoever_waits_last_is_woken() {
        let mut silence = Silence::new();
        assert!(silence.poll_over(&mut Context::from_waker(Waker::noop())).is_pending());
        let began = Instant::now();
        let over = tokio::time::timeout(Duration::from_hours(1), poll_fn(|cx| silence.poll_over(cx))).await;
        assert!(over.is_ok());
        assert_eq!(began.elapsed(), KEEPALIVE_EVERY);
    }

    /// STREAM-004
    #[tokio::test(start_paused = true)]
    async fn a_keepalive_comes_also_where_its_task_had_used_up_its_turn() {
        let mut silence = Silence::new();
        let (began, mut first) = (Instant::now(), true);
        let over = poll_fn(|cx| {
            while first && has_budget_remaining() {
                let _ = pin!(consume_budget()).poll(cx);
            }
            first = false;
            silence.poll_over(cx)
        });
        assert!(tokio::time::timeout(Duration::from_hours(1), over).await.is_ok());
        assert_eq!(began.elapsed(), KEEPALIVE_EVERY);
    }

    proptest! {
        /// STREAM-001
        #[test]
        fn a_token_written_by_hand_is_what_serde_writes(
            t in "\\PC{0,8}|[\"\\\\\u{0}-\u{1f}a]{0,8}",
            i in any::<u64>(),
            id in "[1-9]{1,9}(-[1-9]{1,9})?",
        ) {
            let id = id.parse().unwrap();
            let (mut by_hand, mut by_serde) = (Vec::new(), Vec::new());
            put_token(&mut by_hand, id, &t, i);
            put_frame(&mut by_serde, Some(id), "token", &Token { t, i });
            prop_assert_eq!(String::from_utf8(by_hand), String::from_utf8(by_serde));
        }
    }
}
