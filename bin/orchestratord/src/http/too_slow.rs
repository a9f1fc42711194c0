//! What a reader is told whose task's events were let go of before it had read them.

use task_log::Behind;
use wire::ErrorCode;
use wire::event::StreamError;

/// The last that it hears. `transcript`: the artifact that still has the answer.
pub(super) fn too_slow(behind: Behind, transcript: Option<&str>) -> StreamError {
    let Behind { entries, bytes, token_events } = behind;
    let message = format!(
        "this reader was {entries} events ({bytes} bytes) behind a task that has ended and is not kept any more, \
         and more was held for slow readers than journal.keep_unread_bytes allows, so the rest is gone; ask again \
         and read faster"
    );
    let hint = match transcript {
        Some(sha256) => format!("the whole answer is GET /v2/artifacts/{sha256}"),
        None => "journal.keep_tasks, keep_bytes and keep_minutes keep ended tasks longer, and \"transcript\": true on a \
                 /v2 task keeps its answer as an artifact"
            .to_owned(),
    };
    StreamError {
        code: ErrorCode::ReaderTooSlow,
        message,
        retriable: ErrorCode::ReaderTooSlow.retriable(),
        retry_after_ms: None,
        hint: Some(hint),
        tokens_sent: token_events,
    }
}
