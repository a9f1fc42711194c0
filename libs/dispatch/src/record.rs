//! An accepted task as the journal keeps it, and back. The prompt is kept apart, because it goes
//! when the task ends.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use adapter_host::EngineRequest;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use wire::task::{OnInterrupt, Placement, Priority};
use wire::{PoolId, SessionId, TaskId, TraceContext};

use crate::{CallerId, Detach, Owner, TaskSpec};

/// The version this code writes; it reads 1 to this one.
const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    version: u32,
    task_id: TaskId,
    fingerprint: [u8; 32],
    /// Absent: the control scope.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    caller: String,
    /// The pool that its model meant: names change.
    pool: PoolId,
    priority: Priority,
    admitted_ms: u64,
    /// On the wall's clock: the time that a restart takes counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deadline_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    placement: Option<Placement>,
    detach: Kept,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    session: Option<SessionId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tokens_in: Option<u64>,
    #[serde(default, skip_serializing_if = "is_default")]
    on_interrupt: OnInterrupt,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    transcript: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    traceparent: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tracestate: Option<String>,
}

fn is_default(on_interrupt: &OnInterrupt) -> bool {
    *on_interrupt == OnInterrupt::default()
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kept {
    AtOnce,
    AfterMs(u64),
    Never,
}

/// Why a record cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    /// It is not what we write.
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// A later version wrote it.
    #[error("a later version wrote it ({0}; this one reads 1 to {VERSION})")]
    Version(u32),
}

/// A task read back, but for its prompt.
#[derive(Debug)]
pub(crate) struct Restored {
    pub(crate) id: TaskId,
    pub(crate) pool: PoolId,
    /// With an empty request, and the time that is left as deadline.
    pub(crate) spec: TaskSpec,
    /// How long ago it was admitted.
    pub(crate) age: Duration,
}

/// What is kept of a task that is admitted now.
pub(crate) fn write(id: &TaskId, pool: &PoolId, spec: &TaskSpec) -> serde_json::Result<Box<RawValue>> {
    // Named one by one, so that a field that is added is not forgotten here.
    let TaskSpec {
        task_id: _,
        fingerprint,
        owner,
        caller,
        model: _,
        request: _,
        tokens_in,
        priority,
        deadline,
        placement,
        detach,
        on_interrupt,
        transcript,
        session,
        trace,
    } = spec;
    let now = now_ms();
    to_raw_value(&Record {
        version: VERSION,
        task_id: id.clone(),
        fingerprint: *fingerprint,
        owner: match owner {
            Owner::Control => None,
            Owner::Data(name) => Some(name.to_string()),
        },
        caller: caller.to_string(),
        pool: pool.clone(),
        priority: *priority,
        admitted_ms: now,
        deadline_ms: deadline.map(|life| now.saturating_add(millis(life))),
        placement: placement.clone(),
        detach: match detach {
            Detach::AtOnce => Kept::AtOnce,
            Detach::After(grace) => Kept::AfterMs(millis(*grace)),
            Detach::Never => Kept::Never,
        },
        session: session.clone(),
        tokens_in: *tokens_in,
        on_interrupt: *on_interrupt,
        transcript: *transcript,
        traceparent: trace.as_ref().map(TraceContext::traceparent),
        tracestate: trace.as_ref().and_then(TraceContext::tracestate).map(str::to_owned),
    })
}

/// Reads a record back, with the request that was kept apart.
pub(crate) fn read(record: &RawValue, request: EngineRequest) -> Result<Restored, RecordError> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let Versioned { version } = serde_json::from_str(record.get())?;
    if !(1..=VERSION).contains(&version) {
        return Err(RecordError::Version(version));
    }
    let record: Record = serde_json::from_str(record.get())?;
    let now = now_ms();
    let left = |deadline: u64| Duration::from_millis(deadline.saturating_sub(now));
    Ok(Restored {
        id: record.task_id.clone(),
        pool: record.pool.clone(),
        spec: TaskSpec {
            task_id: Some(record.task_id),
            fingerprint: record.fingerprint,
            owner: record.owner.map_or(Owner::Control, |name| Owner::Data(name.into())),
            caller: CallerId::written(&record.caller),
            model: record.pool.into(),
            request,
            tokens_in: record.tokens_in,
            priority: record.priority,
            deadline: record.deadline_ms.map(left),
            placement: record.placement,
            detach: match record.detach {
                Kept::AtOnce => Detach::AtOnce,
                Kept::AfterMs(grace) => Detach::After(Duration::from_millis(grace)),
                Kept::Never => Detach::Never,
            },
            on_interrupt: record.on_interrupt,
            transcript: record.transcript,
            session: record.session,
            trace: record
                .traceparent
                .and_then(|parent| TraceContext::parse(&parent, record.tracestate.as_deref())),
        },
        age: Duration::from_millis(now.saturating_sub(record.admitted_ms)),
    })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)
}

#[cfg(test)]
mod tests {
    use super::*;
    use adapter_host::{CompletionRequest, Prompt, Sampling, SoFar};

    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn request() -> EngineRequest {
        let prompt = Prompt::Text("SECRET".to_owned());
        EngineRequest::Completion(CompletionRequest {
            prompt,
            sampling: Sampling::default(),
            cache_prompt: true,
            so_far: SoFar::Nothing,
        })
    }

    /// ORCHD-JOURNAL-009: what version 1 wrote, byte for byte.
    #[test]
    fn a_record_of_the_first_version_is_read() {
        let text = r#"{"version":1,"task_id":"mine","fingerprint":[7,7,7,7,7,7,7,7,7,7,7,7,7,7,7,7,7,7,7,7,7,7,7,7,7,7,7,7,7,7,7,7],"owner":"a1b2","caller":"key web","pool":"haiku","priority":"batch","admitted_ms":1700000000000,"deadline_ms":1700000000001,"detach":{"after_ms":30000},"session":"s","tokens_in":12}"#;
        let record = RawValue::from_string(text.to_owned()).unwrap();
        let restored = read(&record, request()).unwrap();
        assert_eq!(restored.id.as_str(), "mine");
        assert_eq!(restored.spec.owner, Owner::Data("a1b2".into()));
        assert_eq!((restored.spec.caller, restored.spec.tokens_in), (CallerId::key("web"), Some(12)));
        assert_eq!(restored.spec.deadline, Some(Duration::ZERO));
        assert_eq!(restored.spec.detach, Detach::After(Duration::from_secs(30)));
        assert_eq!(restored.spec.priority, Priority::Batch);
        assert!(restored.age > Duration::from_secs(1_000_000));
        let later = RawValue::from_string(r#"{"version":9,"new":true}"#.to_owned()).unwrap();
        assert!(matches!(read(&later, request()), Err(RecordError::Version(9))));
    }

    /// ORCHD-JOURNAL-004
    #[test]
    fn a_record_holds_no_prompt() {
        let spec = TaskSpec {
            task_id: None,
            fingerprint: [1; 32],
            owner: Owner::Control,
            caller: CallerId::key("web"),
            model: "m".to_owned(),
            request: request(),
            tokens_in: None,
            priority: Priority::Interactive,
            deadline: Some(Duration::from_secs(100)),
            placement: None,
            detach: Detach::Never,
            on_interrupt: OnInterrupt::Resume,
            transcript: false,
            session: None,
            trace: TraceContext::parse(TRACE, Some("a=1")),
        };
        let pool = PoolId::try_new("p").unwrap();
        let record = write(&TaskId::generate(), &pool, &spec).unwrap();
        assert!(!record.get().contains("SECRET"));
        let spec = read(&record, request()).unwrap().spec;
        assert_eq!(spec.trace, TraceContext::parse(TRACE, Some("a=1")));
        let left = spec.deadline.unwrap();
        assert!(left > Duration::from_secs(90) && left <= Duration::from_secs(100), "{left:?}");
    }
}
