//! Tasks as clients submit and see them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::seed::Seed;
use crate::{ErrorBody, PoolId, ReplicaId, SessionId, TaskId};

/// The body of `POST /v2/tasks`. Unknown fields are errors.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskRequest {
    /// Client-chosen id: the same id and body submit once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_id: Option<TaskId>,
    /// Session the task belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<SessionId>,
    /// Pool id, alias or model name.
    #[serde(alias = "model_ref")]
    pub model: String,
    /// What to run; by default what the given input implies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<Workload>,
    /// Text to complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// Texts to make vectors of; with `prompt` beside it, documents to be ranked by how well they answer it.
    /// At most 2048, none empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub inputs: Option<Vec<String>>,
    /// Chat messages; the model's own template is applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages: Option<Vec<Message>>,
    /// Tokens to generate at most; absent: until the model stops or its context is full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16_777_216))]
    pub max_tokens: Option<u32>,
    /// Seed of the sampling, 0 to 4294967295, as a number or a string.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<Seed>,
    /// 0 is greedy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 10.0))]
    pub temperature: Option<f64>,
    /// Nucleus sampling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub top_p: Option<f64>,
    /// Keep the k likeliest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_k: Option<u32>,
    /// Minimum probability relative to the likeliest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub min_p: Option<f64>,
    /// 1 is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 10.0))]
    pub repeat_penalty: Option<f64>,
    /// Strings that end the generation; at most 16 of at most 256 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<Vec<String>>,
    /// GBNF grammar the text must follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grammar: Option<String>,
    /// JSON Schema the text must follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json_schema: Option<serde_json::Value>,
    /// Class in the queue.
    #[serde(default)]
    pub priority: Priority,
    /// Whole life of the task, from admission.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub deadline_ms: Option<u64>,
    /// What becomes of it when the engine under it is lost after its first token.
    #[serde(default)]
    pub on_interrupt: OnInterrupt,
    /// How exactly the answer must be repeatable.
    #[serde(default)]
    pub determinism: Determinism,
    /// Where it may run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// How long it may run without a reader, from `started`; default 30 000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub detach_grace_ms: Option<u64>,
    /// Keep what was asked and answered as an artifact when the task has finished; its receipt names it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub transcript: bool,
}

/// What a task does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Workload {
    /// Continue `prompt`.
    Completion,
    /// Answer `messages`.
    Chat,
    /// Make vectors of `inputs`.
    Embedding,
    /// Rank `inputs` by how well they answer `prompt`.
    Rerank,
}

/// How exactly an answer must be repeatable.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Determinism {
    /// As far as it goes: other tasks in the same batch may change the last bits.
    #[default]
    BestEffort,
    /// The same request with the same seed gives the same bytes on the same engine and model: only pools
    /// with `deterministic: true` take it, and an answer that draws its tokens (`temperature` is not 0)
    /// fails with `ENGINE_LOST` instead of going on with another engine.
    Strict,
}

/// A chat message. Content is a string or OpenAI content parts; other fields go through.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Message {
    /// `system`, `user`, `assistant` or `tool`.
    pub role: String,
    /// Text, parts, or null beside tool calls.
    #[serde(default)]
    pub content: serde_json::Value,
    /// `name`, `tool_calls`, `tool_call_id` and the like.
    #[serde(flatten)]
    pub rest: serde_json::Map<String, serde_json::Value>,
}

/// Queue classes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// A person is waiting.
    #[default]
    Interactive,
    /// Nobody is.
    Batch,
}

/// What becomes of a task whose engine is lost after its first token.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnInterrupt {
    /// It goes on with another engine, announced by `resumed`. A task with a grammar or a JSON schema
    /// cannot, and fails with `ENGINE_LOST`.
    #[default]
    Resume,
    /// It fails with `ENGINE_LOST`.
    Fail,
}

/// Where a task may run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Placement {
    /// How binding the rest is.
    pub mode: PlacementMode,
    /// The pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool_id: Option<PoolId>,
    /// The replica.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica_id: Option<ReplicaId>,
}

/// How binding a placement is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PlacementMode {
    /// Anywhere feasible.
    Auto,
    /// There if it is free, else anywhere feasible.
    Prefer,
    /// There or nowhere.
    Pin,
}

/// The answer to an accepted `POST /v2/tasks`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Accepted {
    /// The task's id.
    pub task_id: TaskId,
    /// Tasks of its pool that go first.
    pub queue_position: u32,
    /// Measured estimate until it starts; null while nothing has been measured.
    pub predicted_start_ms: Option<u64>,
    /// Where to follow it.
    pub streams: Streams,
    /// What is still being prepared.
    pub preparation: Preparation,
}

/// Paths of a task's event streams.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Streams {
    /// Tokens and outcome.
    pub sse: String,
    /// The same with queue, preparation and metrics events.
    pub sse_verbose: String,
}

/// What stands between a task and its engine.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
pub struct Preparation {
    /// In order; empty when the pool is ready.
    pub steps: Vec<PreparationStep>,
}

/// One step of preparing an engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PreparationStep {
    /// Stable within a preparation, as `haiku/engine`.
    pub id: String,
    /// What kind of work.
    pub kind: StepKind,
    /// For people: what is going on now.
    pub description: String,
    /// Where it stands.
    pub status: StepStatus,
    /// Work done, in bytes or, for a build, in compile steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_done: Option<u64>,
    /// Work in all, in the same unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_total: Option<u64>,
    /// Estimated time left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimated_ms: Option<u64>,
}

/// Kinds of preparation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    /// Fetching and building the engine.
    EngineProvision,
    /// Fetching and checking the model.
    ModelFetch,
    /// Starting the engine and loading the model.
    PoolWarmup,
}

/// Where a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StepStatus {
    /// Not begun.
    Pending,
    /// Under way.
    Running,
    /// Done.
    Completed,
    /// Failed; the description says why.
    Failed,
}

/// A task's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Waits for a slot.
    Queued,
    /// Has a slot.
    Running,
    /// Ended by itself.
    Done,
    /// Ended with an error.
    Failed,
    /// Ended by its owner or for want of a reader.
    Cancelled,
    /// Cut off by a crash or shutdown.
    Interrupted,
}

impl TaskState {
    /// Whether nothing more will happen.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }
}

/// `GET /v2/tasks/{id}`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct TaskView {
    /// The task.
    pub task_id: TaskId,
    /// Its state.
    pub state: TaskState,
    /// The pool it was admitted to.
    pub pool_id: PoolId,
    /// The replica that ran it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica_id: Option<ReplicaId>,
    /// Its class.
    pub priority: Priority,
    /// Tasks ahead of it, while it is queued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_position: Option<u32>,
    /// Time in the queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_ms: Option<u64>,
    /// Time on an engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decode_time_ms: Option<u64>,
    /// Prompt tokens, from the engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_in: Option<u64>,
    /// Generated tokens, from the engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_out: Option<u64>,
    /// Why it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<crate::event::FinishReason>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorBody>,
    /// What ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Box<crate::Receipt>>,
    /// Of an embedding task its vectors, of a rerank task its scores, as the engine answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<serde_json::Value>,
    /// Why it was placed where it was, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<String>,
}

/// `GET /v2/tasks`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct TaskList {
    /// Newest first.
    pub tasks: Vec<TaskView>,
    /// Where the next page begins: give it as `cursor`. Absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_field_is_refused_by_name() {
        let error = serde_json::from_str::<TaskRequest>(r#"{"model":"haiku","promt":"x"}"#).unwrap_err();
        assert!(error.to_string().contains("`promt`"), "{error}");
    }
}
