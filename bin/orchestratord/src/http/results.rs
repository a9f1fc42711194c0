//! What an embedding or rerank task has to show: the engine's whole answer, which the log keeps as the
//! one chunk without text. It is added to `end` and to the task's view when they are rendered, so that
//! a large answer is kept once.

use dispatch::Task;
use serde::Deserialize;
use serde_json::Value;
use task_log::{Behind, Entry, Follower};
use wire::event::End;
use wire::{EngineChunk, TaskState, TaskView};

/// Vectors or scores, as llama-server names them; what generates has neither.
#[derive(Deserialize)]
struct Answer {
    data: Option<Value>,
    results: Option<Value>,
}

/// A task's view, with its result where it has one; unless that was let go of just now.
pub(super) fn shown(task: &Task) -> Result<TaskView, Behind> {
    let mut view = task.view();
    if view.state == TaskState::Done && view.tokens_out == Some(0) {
        let mut reader = task.log().follow(None);
        view.result = of(std::iter::from_fn(|| reader.try_next()).map(|(_, entry)| entry));
        if let Some(behind) = reader.behind().filter(|_| view.result.is_none()) {
            return Err(behind);
        }
    }
    Ok(view)
}

/// A task's `end` for a reader that has come to it, with the task's result where it has one. The reader holds
/// that: what has a result has so few entries that they lie together.
pub(super) fn ended(reader: &Follower, end: &End) -> End {
    let result = if end.tokens_out == 0 { of(reader.held()).map(Box::new) } else { None };
    End { result, ..end.clone() }
}

fn of<E: AsRef<Entry>>(mut entries: impl Iterator<Item = E>) -> Option<Value> {
    entries.find_map(|entry| match entry.as_ref() {
        Entry::Chunk { chunk, .. } => Some(answer(chunk)),
        _ => None,
    })?
}

/// A generation that ended without a token has chunks, too, but none of these.
fn answer(chunk: &EngineChunk) -> Option<Value> {
    if !chunk.text.is_empty() || !chunk.tokens.is_empty() {
        return None;
    }
    let answer: Answer = serde_json::from_str(chunk.raw()).ok()?;
    answer.data.or(answer.results)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use task_log::TaskLog;
    use wire::RawJson;
    use wire::event::FinishReason;

    use super::*;

    /// ORCHD-ONCE-002, STREAM-015: of a log that was let go of, who holds an end is told it as it is.
    #[tokio::test]
    async fn an_end_has_its_result_also_when_nobody_keeps_its_task_any_more() {
        for (raw, result) in [
            (r#"{"data": [1]}"#, Some(json!([1]))),
            (r#"{"results": [2]}"#, Some(json!([2]))),
            (r#"{"choices": [{"delta": {"role": "assistant"}}]}"#, None),
        ] {
            let (log, mut writer) = TaskLog::new(1 << 20);
            let raw = Some(RawJson::parse(raw).unwrap());
            writer.chunk(EngineChunk { raw, ..EngineChunk::default() }).unwrap();
            writer.end(End {
                tokens_in: Some(1),
                tokens_out: 0,
                decode_time_ms: 1,
                finish_reason: FinishReason::Stop,
                receipt: Box::default(),
                result: None,
            });
            let mut reader = log.follow(None);
            reader.next().await.unwrap();
            log.held().let_go();
            let (_, last) = reader.next().await.unwrap();
            let Entry::End(end) = &*last else { panic!("{last:?}") };
            assert_eq!(ended(&reader, end).result.map(|result| *result), result);
        }
    }
}
