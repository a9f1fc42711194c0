//! What an embedding or rerank task has to show: the engine's whole answer, which the log keeps as the
//! one chunk without text. It is added to `end` and to the task's view when they are rendered, so that
//! a large answer is kept once.

use dispatch::Task;
use serde::Deserialize;
use serde_json::Value;
use task_log::{Behind, Entry};
use wire::event::End;
use wire::{TaskState, TaskView};

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
        view.result = of(task)?;
    }
    Ok(view)
}

/// A task's `end`, with its result where it has one; unless that was let go of.
pub(super) fn ended(task: &Task, end: &End) -> Result<End, Behind> {
    let result = if end.tokens_out == 0 { of(task)?.map(Box::new) } else { None };
    Ok(End { result, ..end.clone() })
}

fn of(task: &Task) -> Result<Option<Value>, Behind> {
    let mut follower = task.log().follow(None);
    while let Some((_, entry)) = follower.try_next() {
        let Entry::Chunk { chunk, .. } = &*entry else { continue };
        // A generation that ended without a token has chunks, too, but none of these.
        if !chunk.text.is_empty() || !chunk.tokens.is_empty() {
            return Ok(None);
        }
        let answer = serde_json::from_str::<Answer>(chunk.raw.get()).ok();
        return Ok(answer.and_then(|answer| answer.data.or(answer.results)));
    }
    follower.behind().map_or(Ok(None), Err)
}
