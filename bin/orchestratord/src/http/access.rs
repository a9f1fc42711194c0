//! The request log: one line per answered request, written when its last byte is out or its client
//! has gone. Names routes by their template and callers by their name; never holds a path as it was
//! sent, a query, a prompt or a token.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};
use http_body::{Body as HttpBody, Frame, SizeHint};
use wire::CorrelationId;

use super::trace::{TracedRequest, Traces};
use crate::tokens::Caller;

const CORRELATION_ID: HeaderName = HeaderName::from_static("x-correlation-id");
/// The same as Anthropic's SDKs know it.
const ANTHROPIC_REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Asked every second by whoever watches: worth a line only to those who look for it.
const POLLED: [&str; 5] = ["/health", "/livez", "/ready", "/readyz", "/metrics"];

/// Gives every response the caller's correlation id, or a new one, and what [`logged`] writes of its request.
pub(super) async fn correlate(State(traces): State<Traces>, mut request: Request, next: Next) -> Response {
    let began = Instant::now();
    let given = request.headers().get(&CORRELATION_ID).and_then(|v| v.to_str().ok());
    let id = given.and_then(|v| CorrelationId::try_new(v).ok()).unwrap_or_else(CorrelationId::generate);
    let path = request.extensions().get::<MatchedPath>().cloned();
    let method = request.method().clone();
    let polled = path.as_ref().is_some_and(|path| POLLED.contains(&path.as_str()));
    let trace = if polled { None } else { traces.request(request.headers()) };
    if let Some(trace) = &trace {
        request.extensions_mut().insert(trace.context.clone());
    }
    let mut response = next.run(request).await;
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        response.headers_mut().insert(CORRELATION_ID, value.clone());
        response.headers_mut().insert(REQUEST_ID, value.clone());
        response.headers_mut().insert(ANTHROPIC_REQUEST_ID, value);
    }
    let caller = response.extensions_mut().remove::<Caller>();
    let status = response.status().as_u16();
    response.extensions_mut().insert(Line { id, method, path, status, caller, trace, traces, began });
    response
}

/// A response whose request is logged once its body is out. The server applies it outside of all routes: hyper
/// keeps this body itself, where axum would have to put it into a box that every event passes.
pub(super) fn logged(mut response: Response) -> Response<Logged> {
    let line = response.extensions_mut().remove();
    response.map(|body| Logged { body, bytes: 0, line })
}

/// What is known of a request before its body is out. [`Clone`] because a response carries nothing else; it is
/// taken from there, never cloned.
#[derive(Clone)]
struct Line {
    id: CorrelationId,
    method: Method,
    path: Option<MatchedPath>,
    status: u16,
    caller: Option<Caller>,
    trace: Option<TracedRequest>,
    traces: Traces,
    began: Instant,
}

impl Line {
    fn write(self, bytes: u64, complete: bool) {
        let path = self.path.as_ref().map_or("unmatched", MatchedPath::as_str);
        let caller = self.caller.as_ref().map_or("-", Caller::name);
        let duration_ms = self.began.elapsed().as_micros() as f64 / 1e3;
        if let Some(trace) = &self.trace {
            self.traces.answered(trace, &self.method, self.path.as_ref(), self.status, &self.id);
        }
        let trace_id = self.trace.as_ref().map(|trace| trace.context.trace_id());
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    target: "orchestratord::access",
                    correlation_id = %self.id,
                    trace_id = trace_id.map(tracing::field::display),
                    method = %self.method,
                    path,
                    status = self.status,
                    duration_ms,
                    bytes,
                    caller,
                    complete,
                    "request"
                )
            };
        }
        if POLLED.contains(&path) {
            line!(debug);
        } else {
            line!(info);
        }
    }
}

/// A body that counts its bytes and has its line written at its end, however it ends.
pub(super) struct Logged {
    body: Body,
    bytes: u64,
    line: Option<Line>,
}

impl HttpBody for Logged {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => self.bytes += frame.data_ref().map_or(0, |data| data.len() as u64),
            Some(Err(_)) => {}
            None => self.finish(true),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Logged {
    fn finish(&mut self, complete: bool) {
        if let Some(line) = self.line.take() {
            line.write(self.bytes, complete);
        }
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        // hyper does not ask a body of known length for its end.
        let complete = self.body.is_end_stream();
        self.finish(complete);
    }
}
