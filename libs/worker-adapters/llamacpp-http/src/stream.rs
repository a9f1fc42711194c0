//! A response body as a [`TokenStream`]. It owns the body: dropping the stream closes the
//! connection, and the engine frees the slot.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::Duration;

use adapter_host::{EngineItem, Finished, StreamFault, TokenStream};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use reqwest::Response;
use serde::Deserialize;
use serde_json::value::RawValue;
use wire::EngineChunk;

use crate::client::broken;
use crate::refusal::EngineError;
use crate::sse::{Event, Parser};

/// How long the end of a finished body is waited for.
const DRAIN: Duration = Duration::from_millis(20);

/// One of the engine's two streaming protocols.
pub(crate) trait Read: Send + 'static {
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

struct Reading<R> {
    body: Pin<Box<dyn Stream<Item = reqwest::Result<Bytes>> + Send>>,
    parser: Parser,
    events: Vec<Event>,
    read: R,
    ready: VecDeque<Result<EngineItem, StreamFault>>,
    over: bool,
}

pub(crate) fn tokens(response: Response, read: impl Read) -> TokenStream {
    of_body(response.bytes_stream(), read)
}

pub(crate) fn of_body(
    body: impl Stream<Item = reqwest::Result<Bytes>> + Send + 'static,
    read: impl Read,
) -> TokenStream {
    let reading = Reading {
        body: Box::pin(body),
        parser: Parser::default(),
        events: Vec::new(),
        read,
        ready: VecDeque::new(),
        over: false,
    };
    TokenStream::new(stream::unfold(reading, |mut reading| async {
        let item = reading.next().await?;
        Some((item, reading))
    }))
}

impl<R: Read> Reading<R> {
    async fn next(&mut self) -> Option<Result<EngineItem, StreamFault>> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                if let Ok(EngineItem::Finished(_)) = item {
                    self.drain().await;
                }
                return Some(item);
            }
            if self.over {
                return None;
            }
            match self.body.next().await {
                Some(Ok(bytes)) => self.take(&bytes),
                Some(Err(error)) => self.cut(broken(&error)),
                None => self.cut("it closed the stream before the end".to_owned()),
            }
        }
    }

    /// Reads the end of the body behind the last event. Only a body read to its end leaves its
    /// connection for the next request; it is there at once, or not worth waiting for.
    async fn drain(&mut self) {
        let rest = async { while let Some(Ok(_)) = self.body.next().await {} };
        let _in_time = tokio::time::timeout(DRAIN, rest).await;
    }

    fn take(&mut self, bytes: &[u8]) {
        let parsed = self.parser.push(bytes, &mut self.events);
        for event in std::mem::take(&mut self.events) {
            if self.over {
                return;
            }
            match self.read_event(event) {
                Ok(step) => self.keep(step),
                Err(fault) => self.fail(fault),
            }
        }
        if let Err(fault) = parsed
            && !self.over
        {
            self.fail(StreamFault::Protocol(fault.to_string()));
        }
    }

    fn read_event(&mut self, event: Event) -> Result<Step, StreamFault> {
        let data = match event {
            Event::Data(data) => data,
            Event::Error(text) => return Err(engine_error(&text).unwrap_or(unknown_error())),
        };
        // Both protocols report an error alike: `data: {"error": {...}}`, and nothing after it.
        match engine_error(&data) {
            Some(fault) => Err(fault),
            None => self.read.read(&data),
        }
    }

    fn keep(&mut self, step: Step) {
        self.ready.extend(step.chunk.map(|chunk| Ok(EngineItem::Chunk(chunk))));
        if let Some(finished) = step.finished {
            self.over = true;
            self.ready.push_back(Ok(EngineItem::Finished(finished)));
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

#[derive(Deserialize)]
struct MaybeError {
    error: EngineError,
}

fn engine_error(data: &str) -> Option<StreamFault> {
    // Most frames are not errors; do not parse them twice.
    if !data.contains("\"error\"") {
        return None;
    }
    let error = serde_json::from_str::<MaybeError>(data).ok()?.error;
    Some(StreamFault::Engine(error.message()))
}

fn unknown_error() -> StreamFault {
    StreamFault::Engine("an error it did not explain".to_owned())
}

/// A frame that is not its protocol's. Says where, never what: frames are someone's text.
pub(crate) fn malformed(error: &serde_json::Error) -> StreamFault {
    StreamFault::Protocol(format!("an event is not its JSON, at byte {}", error.column()))
}

pub(crate) fn chunk(
    text: String,
    tokens: Vec<u32>,
    unnamed: u32,
    data: &str,
) -> Result<EngineChunk, StreamFault> {
    let raw = RawValue::from_string(data.to_owned()).map_err(|error| malformed(&error))?;
    Ok(EngineChunk { text, tokens, unnamed, raw })
}
