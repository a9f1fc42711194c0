//! Writing server-sent events: frames, comments, and a response that closes with its stream.

use std::convert::Infallible;
use std::fmt::Write as _;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderName, HeaderValue, header};
use serde::Serialize;

/// Sent when nothing else was for a while, so that proxies keep the connection.
pub(super) const KEEPALIVE: Bytes = Bytes::from_static(b": keepalive\n\n");
/// How long "a while" is.
pub(super) const KEEPALIVE_EVERY: std::time::Duration = std::time::Duration::from_secs(15);

/// What is there already goes out in pieces of about this much: a reader that comes back to a long log
/// must not have all of it rendered at once. hyper gathers sixteen pieces into one write and asks for no
/// more, so this also bounds what is held for a reader that takes nothing, to 16 KiB.
pub(super) const WRITE_BYTES: usize = 1024;

const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// One `/v2` frame. JSON holds no raw line break, so the data is always one line.
pub(super) fn frame(id: Option<&dyn std::fmt::Display>, event: &str, data: &impl Serialize) -> Bytes {
    let mut text = String::with_capacity(96);
    if let Some(id) = id {
        let _ = writeln!(text, "id: {id}");
    }
    text.push_str("event: ");
    text.push_str(event);
    text.push_str("\ndata: ");
    // Our own types serialise; a failure would be a bug, and an empty object is honest about it.
    text.push_str(&serde_json::to_string(data).unwrap_or_else(|_| "{}".to_owned()));
    text.push_str("\n\n");
    Bytes::from(text)
}

/// One `/v1` frame: data only, because OpenAI's SDKs stumble over ids and event names.
pub(super) fn data_frame(json: &str) -> Bytes {
    Bytes::from(format!("data: {json}\n\n"))
}

/// A streaming response.
pub(super) fn response(stream: impl Stream<Item = Bytes> + Send + 'static) -> Response {
    let body = Body::from_stream(futures_util::StreamExt::map(stream, Ok::<Bytes, Infallible>));
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response
}
