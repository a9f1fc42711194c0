//! Spans: what was done when, for whoever collects traces. They hold names, counts and ids, never a
//! prompt or an answer.
//!
//! Whoever has one to tell puts it in a bounded buffer and goes on; one for which there is no room is
//! dropped and counted. Who takes them out and where they go is not known here.

use std::time::SystemTime;

use prometheus_client::metrics::counter::Counter;
use tokio::sync::mpsc;
use tokio::time::Instant;
use wire::{SpanId, TraceContext, TraceId};

/// A piece of work that is over.
#[derive(Debug, Clone)]
pub struct Span {
    /// The trace that it is part of.
    pub trace: TraceId,
    /// Which part.
    pub id: SpanId,
    /// Below which other part; `None` for the first of its trace.
    pub parent: Option<SpanId>,
    /// What it was.
    pub name: String,
    /// Which side of a call it was.
    pub side: Side,
    /// When it began.
    pub start: SystemTime,
    /// When it was over.
    pub end: SystemTime,
    /// What is to be known of it.
    pub attributes: Vec<(&'static str, Attribute)>,
    /// What happened meanwhile.
    pub events: Vec<(&'static str, SystemTime)>,
    /// Why it failed, if it did: a code or a reason, never what was said.
    pub error: Option<String>,
}

/// Which side of a call a span was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Ours alone.
    Internal,
    /// The one that was called.
    Server,
    /// The one that called.
    Client,
}

/// Something to be known of a span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attribute {
    /// A name.
    Text(String),
    /// A number.
    Count(u64),
}

/// Where spans are put. Cheap to clone; all clones fill one buffer.
#[derive(Debug, Clone)]
pub struct Spans {
    sender: mpsc::Sender<Span>,
    dropped: Counter,
}

/// Where they are taken out.
#[derive(Debug)]
pub struct SpanBuffer(mpsc::Receiver<Span>);

impl Spans {
    /// A buffer with room for so many; `dropped` counts those that found none.
    #[must_use]
    pub fn new(room: usize, dropped: Counter) -> (Self, SpanBuffer) {
        let (sender, receiver) = mpsc::channel(room.max(1));
        (Self { sender, dropped }, SpanBuffer(receiver))
    }

    /// Takes a span, if there is room. Never waits.
    pub fn put(&self, span: Span) {
        if self.sender.try_send(span).is_err() {
            self.dropped.inc();
        }
    }
}

impl SpanBuffer {
    /// Waits for a span and takes those that are there with it, at most so many. `None` when nobody can
    /// put one any more. Cancel-safe.
    pub async fn take(&mut self, at_most: usize) -> Option<Vec<Span>> {
        let mut spans = Vec::new();
        (self.0.recv_many(&mut spans, at_most).await > 0).then_some(spans)
    }

    /// Those that are there, at most so many, without waiting.
    pub fn take_now(&mut self, at_most: usize) -> Vec<Span> {
        std::iter::from_fn(|| self.0.try_recv().ok()).take(at_most).collect()
    }
}

/// Where the wall's clock and ours stood at one moment, so that the spans of one task keep their order
/// and their lengths whatever is done to the wall's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clocks {
    ours: Instant,
    wall: SystemTime,
}

impl Clocks {
    pub(crate) fn now() -> Self {
        Self { ours: Instant::now(), wall: SystemTime::now() }
    }

    fn wall(self, at: Instant) -> SystemTime {
        let since = at.checked_duration_since(self.ours);
        let at = match since {
            Some(since) => self.wall.checked_add(since),
            None => self.wall.checked_sub(self.ours.saturating_duration_since(at)),
        };
        at.unwrap_or(self.wall)
    }
}

impl Span {
    /// A span of ours below `parent` that began then and ends now.
    pub(crate) fn ended(
        name: &str,
        of: &TraceContext,
        parent: SpanId,
        since: Instant,
        clocks: Clocks,
    ) -> Self {
        Self {
            trace: of.trace_id(),
            id: of.span_id(),
            parent: Some(parent),
            name: name.to_owned(),
            side: Side::Internal,
            start: clocks.wall(since),
            end: clocks.wall(Instant::now()),
            attributes: Vec::new(),
            events: Vec::new(),
            error: None,
        }
    }

    pub(crate) fn with(mut self, key: &'static str, value: impl Into<Attribute>) -> Self {
        self.attributes.push((key, value.into()));
        self
    }

    pub(crate) fn event(mut self, name: &'static str, at: Option<Instant>, clocks: Clocks) -> Self {
        self.events.extend(at.map(|at| (name, clocks.wall(at))));
        self
    }
}

impl From<&str> for Attribute {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Attribute {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Attribute {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}
