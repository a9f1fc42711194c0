//! W3C trace context: which trace a request belongs to, and which span of it asked. Taken when it is
//! well formed, and passed on as it was understood, never as it was sent.

use std::fmt;

use uuid::Uuid;

/// The flag of a trace that somebody keeps.
const SAMPLED: u8 = 0b01;
/// What is passed on of the flags: that, and that the trace's id is random.
const KNOWN_FLAGS: u8 = 0b11;
/// Members that a `tracestate` may have, and characters in all.
const STATE_MEMBERS: usize = 32;
const STATE_LENGTH: usize = 512;

/// A trace. Shown as 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId([u8; 16]);

/// A span in a trace. Shown as 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId([u8; 8]);

/// A place in a trace: `traceparent`, and the `tracestate` that came with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    trace: TraceId,
    span: SpanId,
    flags: u8,
    state: Option<String>,
}

impl SpanId {
    /// A new one.
    #[must_use]
    pub fn generate() -> Self {
        let bytes = Uuid::new_v4().into_bytes();
        // Around the bytes that say a UUID's version and variant.
        let mut id = [0; 8];
        id[..6].copy_from_slice(&bytes[..6]);
        id[6..].copy_from_slice(&bytes[9..11]);
        Self(id)
    }
}

impl TraceContext {
    /// The context of a request's headers; anything not well formed counts as none, as the
    /// specification asks, and a `tracestate` that is not well formed as no `tracestate`.
    #[must_use]
    pub fn parse(traceparent: &str, tracestate: Option<&str>) -> Option<Self> {
        let mut parts = traceparent.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let [version] = hex::<1>(version)?;
        // Version 00 has exactly four parts; later ones may add some.
        if version == 0xff || (version == 0 && parts.next().is_some()) {
            return None;
        }
        let (trace, span, [flags]) = (hex::<16>(trace)?, hex::<8>(span)?, hex::<1>(flags)?);
        if trace == [0; 16] || span == [0; 8] {
            return None;
        }
        let state = tracestate.filter(|state| is_state(state)).map(str::to_owned);
        Some(Self { trace: TraceId(trace), span: SpanId(span), flags: flags & KNOWN_FLAGS, state })
    }

    /// The first span of a new trace that is kept with this probability; `None` when it is not.
    #[must_use]
    pub fn sample(probability: f64) -> Option<Self> {
        let trace = Uuid::new_v4().into_bytes();
        // The last seven bytes are random in every trace's id, and decide, as elsewhere.
        let drawn = trace[9..].iter().fold(0_u64, |drawn, byte| drawn << 8 | u64::from(*byte));
        let kept = (drawn as f64) < probability * (1_u64 << 56) as f64;
        let root =
            || Self { trace: TraceId(trace), span: SpanId::generate(), flags: KNOWN_FLAGS, state: None };
        kept.then(root)
    }

    /// The same trace, seen from a new span below this one.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { span: SpanId::generate(), ..self.clone() }
    }

    /// The trace.
    #[must_use]
    pub fn trace_id(&self) -> TraceId {
        self.trace
    }

    /// The span that asks.
    #[must_use]
    pub fn span_id(&self) -> SpanId {
        self.span
    }

    /// Whether whoever began the trace keeps it.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The header `traceparent`.
    #[must_use]
    pub fn traceparent(&self) -> String {
        format!("00-{}-{}-{:02x}", self.trace, self.span, self.flags)
    }

    /// The header `tracestate`, where there is one.
    #[must_use]
    pub fn tracestate(&self) -> Option<&str> {
        self.state.as_deref()
    }
}

/// So many bytes in lower-case hexadecimal digits, and nothing else.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let text = text.as_bytes();
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(*pair.first()?)? << 4 | digit(*pair.last()?)?;
    }
    Some(bytes)
}

/// A list of `key=value`, some of which may be empty.
fn is_state(state: &str) -> bool {
    let members =
        || state.split(',').map(|member| member.trim_matches([' ', '\t'])).filter(|m| !m.is_empty());
    let key = |key: &str| {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-*/@".contains(&b);
        let first = key.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        first && key.len() <= 256 && key.bytes().all(inner)
    };
    let value = |value: &str| {
        let inner = |b: u8| (b' '..=b'~').contains(&b) && b != b'=' && b != b',';
        (1..=256).contains(&value.len()) && value.bytes().all(inner)
    };
    state.len() <= STATE_LENGTH
        && (1..=STATE_MEMBERS).contains(&members().count())
        && members().all(|member| member.split_once('=').is_some_and(|(k, v)| key(k) && value(v)))
}

fn digits(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        digits(&self.0, f)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        digits(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn parse(text: &str) -> Option<String> {
        TraceContext::parse(text, None).map(|context| context.traceparent())
    }

    /// ORCHD-TRACE-001
    #[test]
    fn only_a_well_formed_trace_context_is_taken() {
        assert_eq!(parse(GOOD).as_deref(), Some(GOOD));
        let later = format!("01{}-more", &GOOD[2..]);
        assert_eq!(parse(&later).as_deref(), Some(GOOD));
        for bad in [
            "",
            "00",
            &GOOD.to_uppercase(),
            &format!("ff{}", &GOOD[2..]),
            &format!("{GOOD}-more"),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473é-0f067aa0ba902b7-01",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    /// ORCHD-TRACE-001
    #[test]
    fn a_trace_state_is_passed_on_only_when_it_is_well_formed() {
        let state = |state: &str| TraceContext::parse(GOOD, Some(state)).unwrap().state;
        for good in ["a=1", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", "fw529a3039@dt=FfK7 x, b=2", "a=1,,"] {
            assert_eq!(state(good).as_deref(), Some(good));
        }
        let many = vec!["a=1"; 33].join(",");
        for bad in ["", ",", "a", "A=1", "a=", "=1", "a=1=2", "a=\u{7f}", "a=1\r\nX: y", "a=é", &many] {
            assert_eq!(state(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_child_is_another_span_of_the_same_trace() {
        let parent = TraceContext::parse(GOOD, Some("a=1")).unwrap();
        let child = parent.child();
        assert_eq!(
            (child.trace_id(), child.tracestate(), child.is_sampled()),
            (parent.trace_id(), Some("a=1"), true)
        );
        assert_ne!(child.span_id(), parent.span_id());
        assert_eq!(child.span_id().to_string().len(), 16);
    }

    #[test]
    fn new_traces_are_kept_as_often_as_was_asked_for() {
        assert!(TraceContext::sample(0.0).is_none());
        let root = TraceContext::sample(1.0).unwrap();
        assert_eq!(parse(&root.traceparent()), Some(root.traceparent()));
        // Beyond these bounds lie fewer than one in 1e18 runs.
        let kept = (0..500).filter(|_| TraceContext::sample(0.5).is_some()).count();
        assert!((150..=350).contains(&kept), "{kept}");
    }
}
