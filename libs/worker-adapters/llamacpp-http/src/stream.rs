//! A response body as a [`TokenStream`]. It owns the body: dropping the stream closes the
//! connection, and the engine frees the slot.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use adapter_host::{EngineItem, Finished, StreamFault, TokenStream};
use futures_core::Stream;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Sleep;
use wire::EngineChunk;

use crate::client::broken;
use crate::http1::Body;
use crate::refusal::bounded;
use crate::sse::{Event, Parser};

/// How long the end of a finished body is waited for.
const DRAIN: Duration = Duration::from_millis(20);

/// One of the engine's two streaming protocols.
pub(crate) trait Read: Send + Unpin + 'static {
    /// Reads the data of one event.
    fn read(&mut self, data: &str) -> Result<Step, StreamFault>;

    /// The end, if the stream breaks off here and had said all but that.
    fn cut(&mut self) -> Option<Finished> {
        None
    }
}

/// What one event says.
#[derive(Debug, Default)]
pub(crate) struct Step {
    pub(crate) chunk: Option<EngineChunk>,
    pub(crate) finished: Option<Finished>,
}

/// Where the bytes come from.
pub(crate) trait Source: Send + Unpin + 'static {
    /// Gives what there is to `take`; false at the end. The error is the reason of a loss. Whatever was given
    /// is lost if it is pending after that.
    fn poll_bytes(&mut self, cx: &mut Context<'_>, take: &mut dyn FnMut(&[u8]))
    -> Poll<Result<bool, String>>;

    /// Whether the end was seen.
    fn is_over(&self) -> bool;
}

impl Source for Body {
    fn poll_bytes(
        &mut self,
        cx: &mut Context<'_>,
        take: &mut dyn FnMut(&[u8]),
    ) -> Poll<Result<bool, String>> {
        self.poll_read(cx, take).map_err(|error| broken(&error))
    }

    fn is_over(&self) -> bool {
        Body::is_over(self)
    }
}

struct Reading<S, R> {
    body: S,
    events: Events<R>,
    /// How long the end of the body is still waited for.
    drain: Option<Pin<Box<Sleep>>>,
}

/// What the bytes so far have said.
struct Events<R> {
    parser: Parser,
    read: R,
    ready: VecDeque<Result<EngineItem, StreamFault>>,
    over: bool,
}

pub(crate) fn tokens(body: impl Source, read: impl Read) -> TokenStream {
    let events = Events { parser: Parser::default(), read, ready: VecDeque::new(), over: false };
    TokenStream::new(Reading { body, events, drain: None })
}

impl<S: Source, R: Read> Stream for Reading<S, R> {
    type Item = Result<EngineItem, StreamFault>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Some(Ok(EngineItem::Finished(_))) = this.events.ready.front() {
                ready!(this.poll_drain(cx));
            }
            if let Some(item) = this.events.ready.pop_front() {
                return Poll::Ready(Some(item));
            }
            if this.events.over {
                return Poll::Ready(None);
            }
            let (body, events) = (&mut this.body, &mut this.events);
            let mut first = None;
            match ready!(body.poll_bytes(cx, &mut |bytes| events.take(bytes, &mut first))) {
                Ok(true) => {}
                Ok(false) => events.cut("it closed the stream before the end".to_owned()),
                Err(reason) => events.cut(reason),
            }
            if let Some(chunk) = first {
                return Poll::Ready(Some(Ok(EngineItem::Chunk(chunk))));
            }
        }
    }
}

impl<S: Source, R> Reading<S, R> {
    /// Reads the end of the body behind the last event. Only a body read to its end leaves its
    /// connection for the next request; it is there at once, or not worth waiting for.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.body.is_over() {
            match self.body.poll_bytes(cx, &mut |_| {}) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(_) => break,
                Poll::Pending => {
                    let timer = self.drain.get_or_insert_with(|| Box::pin(tokio::time::sleep(DRAIN)));
                    return timer.as_mut().poll(cx);
                }
            }
        }
        Poll::Ready(())
    }
}

impl<R: Read> Events<R> {
    /// Reads what came. The first chunk goes straight to whoever asked, where nothing waits before it: nearly
    /// always there is one.
    fn take(&mut self, bytes: &[u8], first: &mut Option<EngineChunk>) {
        let Self { parser, read, ready, over } = self;
        let parsed = parser.push(bytes, |event| {
            if *over {
                return;
            }
            let step = match read_event(read, event) {
                Ok(step) => step,
                Err(fault) => {
                    *over = true;
                    return ready.push_back(Err(fault));
                }
            };
            if first.is_none() && ready.is_empty() {
                *first = step.chunk;
            } else {
                ready.extend(step.chunk.map(|chunk| Ok(EngineItem::Chunk(chunk))));
            }
            if let Some(finished) = step.finished {
                *over = true;
                ready.push_back(Ok(EngineItem::Finished(finished)));
            }
        });
        if let Err(fault) = parsed
            && !self.over
        {
            self.fail(StreamFault::Protocol(fault.to_string()));
        }
    }

    fn cut(&mut self, reason: String) {
        self.over = true;
        let end = self.read.cut().map(EngineItem::Finished);
        self.ready.push_back(end.ok_or(StreamFault::Lost(reason)));
    }

    fn fail(&mut self, fault: StreamFault) {
        self.over = true;
        self.ready.push_back(Err(fault));
    }
}

fn read_event(read: &mut impl Read, event: Event<'_>) -> Result<Step, StreamFault> {
    let data = match event {
        Event::Data(data) => data,
        Event::Error(text) => return Err(engine_error(text).unwrap_or_else(unknown_error)),
    };
    // Both protocols report an error alike: `data: {"error": {...}}`, and nothing after it.
    match engine_error(data) {
        Some(fault) => Err(fault),
        None => read.read(data),
    }
}

#[derive(Deserialize)]
struct MaybeError {
    error: Value,
}

/// What a frame reports, if that is an error; llama-server's is an object with a number for its code, other
/// servers' has a name there, or is a text.
fn engine_error(data: &str) -> Option<StreamFault> {
    // Most frames are not errors; do not parse them twice.
    if !data.contains("\"error\"") {
        return None;
    }
    let error = serde_json::from_str::<MaybeError>(data).ok()?.error;
    if matches!(error, Value::Null | Value::Bool(false)) {
        return None;
    }
    let message = error.as_str().or_else(|| error.get("message")?.as_str());
    Some(message.map_or_else(unknown_error, |message| StreamFault::Engine(bounded(message))))
}

fn unknown_error() -> StreamFault {
    StreamFault::Engine("an error it did not explain".to_owned())
}

/// A frame that is not its protocol's. Says where, never what: frames are someone's text.
pub(crate) fn malformed(error: &serde_json::Error) -> StreamFault {
    StreamFault::Protocol(format!("an event is not its JSON, at byte {}", error.column()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// LCPP-008
    #[test]
    fn an_error_is_the_engines_word_in_whatever_shape_and_none_is_none() {
        let engines = |text: &str| Some(StreamFault::Engine(text.to_owned()));
        for (error, said) in [
            (r#"{"code":500,"message":"no room","type":"server_error"}"#, engines("no room")),
            (r#"{"code":"server_error","message":"no room","type":null}"#, engines("no room")),
            (r#""no room""#, engines("no room")),
            (r#"{"message":null}"#, engines("an error it did not explain")),
            ("true", engines("an error it did not explain")),
            ("null", None),
            ("false", None),
        ] {
            let data = format!(r#"{{"choices":[{{"delta":{{"content":"x"}}}}],"error":{error}}}"#);
            assert_eq!(engine_error(&data), said, "{error}");
        }
        assert_eq!(engine_error(r#"{"choices":[{"delta":{"content":"\"error\""}}]}"#), None);
    }
}
