//! The trace that a request belongs to: the one that it names, or a new one where spans are exported.
//! What a request makes us do is a span below it: its admission, and each call of pool-managerd.

use std::time::SystemTime;

use axum::extract::MatchedPath;
use dispatch::{Attribute, Side, Span, Spans};
use http::{HeaderMap, HeaderName, Method};
use wire::{CorrelationId, SpanId, TraceContext};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// What becomes of traces. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Traces {
    /// Absent: nobody collects spans, and no trace is begun here.
    pub(crate) spans: Option<Spans>,
    /// How likely a request that is part of none begins one that is kept.
    pub(crate) sample: f64,
}

/// A request as a part of a trace.
#[derive(Debug, Clone)]
pub(super) struct TracedRequest {
    /// The request.
    pub(super) context: TraceContext,
    /// Whoever sent it.
    parent: Option<SpanId>,
    began: SystemTime,
}

/// Something that is done for a request. Nothing, where that is part of no trace.
#[derive(Debug, Default)]
pub(crate) struct Part(Option<Begun>);

#[derive(Debug)]
struct Begun {
    context: TraceContext,
    parent: SpanId,
    began: SystemTime,
    /// Absent where nobody keeps them.
    spans: Option<Spans>,
}

impl Part {
    /// What whoever is asked for it is told.
    pub(crate) fn context(&self) -> Option<&TraceContext> {
        self.0.as_ref().map(|begun| &begun.context)
    }

    /// It is done. `error` is a code or a status, never what was said.
    pub(crate) fn ended(
        self,
        name: &str,
        side: Side,
        attributes: Vec<(&'static str, Attribute)>,
        error: Option<String>,
    ) {
        let Some(Begun { context, parent, began, spans: Some(spans) }) = self.0 else { return };
        spans.put(Span {
            trace: context.trace_id(),
            id: context.span_id(),
            parent: Some(parent),
            name: name.to_owned(),
            side,
            start: began,
            end: SystemTime::now(),
            attributes,
            events: Vec::new(),
            error,
        });
    }
}

impl Traces {
    /// Begins something that is done for a request.
    pub(crate) fn part(&self, request: Option<&TraceContext>) -> Part {
        Part(request.map(|request| Begun {
            context: request.child(),
            parent: request.span_id(),
            began: SystemTime::now(),
            spans: self.spans.clone().filter(|_| request.is_sampled()),
        }))
    }

    /// Where a request belongs; `None` for one that is part of no trace.
    pub(super) fn request(&self, headers: &HeaderMap) -> Option<TracedRequest> {
        let (context, parent) = match given(headers) {
            Some(sender) => (sender.child(), Some(sender.span_id())),
            None => (self.spans.as_ref().and_then(|_| TraceContext::sample(self.sample))?, None),
        };
        Some(TracedRequest { context, parent, began: SystemTime::now() })
    }

    /// A request was answered.
    pub(super) fn answered(
        &self,
        request: &TracedRequest,
        method: &Method,
        path: Option<&MatchedPath>,
        status: u16,
        correlation: &CorrelationId,
    ) {
        let Some(spans) = self.spans.as_ref().filter(|_| request.context.is_sampled()) else { return };
        let path = path.map_or("unmatched", MatchedPath::as_str);
        let text = |text: &str| Attribute::Text(text.to_owned());
        spans.put(Span {
            trace: request.context.trace_id(),
            id: request.context.span_id(),
            parent: request.parent,
            name: format!("{method} {path}"),
            side: Side::Server,
            start: request.began,
            end: SystemTime::now(),
            attributes: vec![
                ("http.request.method", text(method.as_str())),
                ("http.route", text(path)),
                ("http.response.status_code", Attribute::Count(status.into())),
                ("llama_orch.correlation_id", text(correlation.as_str())),
            ],
            events: Vec::new(),
            // A request that was wrong is its sender's failure.
            error: (status >= 500).then(|| status.to_string()),
        });
    }
}

/// The one valid trace context of a request; anything else counts as none, as the specification asks.
fn given(headers: &HeaderMap) -> Option<TraceContext> {
    let mut parents = headers.get_all(&TRACEPARENT).iter();
    let (Some(parent), None) = (parents.next(), parents.next()) else { return None };
    // A list may come in several headers.
    let states = headers.get_all(&TRACESTATE).iter().map(|value| value.to_str());
    let state: Option<Vec<&str>> = states.map(Result::ok).collect();
    TraceContext::parse(parent.to_str().ok()?, state.map(|parts| parts.join(",")).as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn two_of_them_are_none_and_a_state_may_come_in_parts() {
        let mut headers = HeaderMap::new();
        assert_eq!(given(&headers), None);
        headers.append(TRACEPARENT, GOOD.parse().unwrap());
        assert_eq!(given(&headers).unwrap().tracestate(), None);
        headers.append(TRACESTATE, "a=1".parse().unwrap());
        headers.append(TRACESTATE, "b=2".parse().unwrap());
        assert_eq!(given(&headers).unwrap().tracestate(), Some("a=1,b=2"));
        headers.append(TRACEPARENT, GOOD.parse().unwrap());
        assert_eq!(given(&headers), None);
    }

    /// ORCHD-TRACE-003
    #[test]
    fn where_nobody_collects_spans_no_trace_is_begun() {
        assert!(Traces::default().request(&HeaderMap::new()).is_none());
    }
}
