//! Spans as OTLP's JSON: ids in hexadecimal, 64-bit numbers as text, kinds by their number.

use std::time::{SystemTime, UNIX_EPOCH};

use dispatch::{Attribute, Side, Span};
use serde::{Serialize, Serializer};

/// Who tells.
const SERVICE: &str = "orchestratord";

/// The body of one export.
pub(super) fn request(spans: &[Span]) -> serde_json::Result<Vec<u8>> {
    let (name, version) = (text(SERVICE), text(env!("CARGO_PKG_VERSION")));
    serde_json::to_vec(&Request {
        resource_spans: [ResourceSpans {
            resource: Resource {
                attributes: [
                    KeyValue { key: "service.name", value: name },
                    KeyValue { key: "service.version", value: version },
                ],
            },
            scope_spans: [ScopeSpans {
                scope: Scope { name: SERVICE, version: env!("CARGO_PKG_VERSION") },
                spans: spans.iter().map(Encoded::of).collect(),
            }],
        }],
    })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    resource_spans: [ResourceSpans<'a>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceSpans<'a> {
    resource: Resource<'a>,
    scope_spans: [ScopeSpans<'a>; 1],
}

#[derive(Serialize)]
struct Resource<'a> {
    attributes: [KeyValue<'a>; 2],
}

#[derive(Serialize)]
struct ScopeSpans<'a> {
    scope: Scope,
    spans: Vec<Encoded<'a>>,
}

#[derive(Serialize)]
struct Scope {
    name: &'static str,
    version: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Encoded<'a> {
    trace_id: String,
    span_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_span_id: Option<String>,
    name: &'a str,
    kind: u8,
    #[serde(serialize_with = "nanos")]
    start_time_unix_nano: SystemTime,
    #[serde(serialize_with = "nanos")]
    end_time_unix_nano: SystemTime,
    attributes: Vec<KeyValue<'a>>,
    events: Vec<Event>,
    status: Status<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    name: &'static str,
    #[serde(serialize_with = "nanos")]
    time_unix_nano: SystemTime,
}

#[derive(Serialize)]
struct KeyValue<'a> {
    key: &'static str,
    value: Value<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum Value<'a> {
    StringValue(&'a str),
    IntValue(String),
}

/// 0 where nothing is said, 2 for a failure.
#[derive(Serialize)]
struct Status<'a> {
    code: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
}

impl<'a> Encoded<'a> {
    fn of(span: &'a Span) -> Self {
        let attributes = span.attributes.iter().map(|(key, value)| {
            let value = match value {
                Attribute::Text(value) => text(value),
                Attribute::Count(value) => Value::IntValue(value.to_string()),
            };
            KeyValue { key, value }
        });
        Self {
            trace_id: span.trace.to_string(),
            span_id: span.id.to_string(),
            parent_span_id: span.parent.map(|id| id.to_string()),
            name: &span.name,
            kind: match span.side {
                Side::Internal => 1,
                Side::Server => 2,
                Side::Client => 3,
            },
            start_time_unix_nano: span.start,
            end_time_unix_nano: span.end,
            attributes: attributes.collect(),
            events: span.events.iter().map(|(name, at)| Event { name, time_unix_nano: *at }).collect(),
            status: Status { code: if span.error.is_some() { 2 } else { 0 }, message: span.error.as_deref() },
        }
    }
}

fn text(value: &str) -> Value<'_> {
    Value::StringValue(value)
}

fn nanos<S: Serializer>(at: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos()))
}
