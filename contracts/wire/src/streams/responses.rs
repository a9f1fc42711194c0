//! The events of a streamed answer of OpenAI's Responses API.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::responses::ResponsesAnswer;

/// The data of one frame of a streamed `/v1/responses`; its event name is the `type`, and
/// `sequence_number` counts the frames from 0.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type")]
#[expect(missing_docs, reason = "OpenAI's names, which say it")]
pub enum ResponsesEvent {
    #[serde(rename = "response.created")]
    Created(ResponseNow),
    #[serde(rename = "response.in_progress")]
    InProgress(ResponseNow),
    #[serde(rename = "response.output_item.added")]
    ItemAdded(ItemNow),
    #[serde(rename = "response.content_part.added")]
    PartAdded(PartNow),
    #[serde(rename = "response.reasoning_text.delta")]
    ReasoningDelta(TextMore),
    #[serde(rename = "response.reasoning_text.done")]
    ReasoningDone(TextDone),
    #[serde(rename = "response.output_text.delta")]
    TextDelta(TextMore),
    #[serde(rename = "response.output_text.done")]
    TextDone(TextDone),
    #[serde(rename = "response.function_call_arguments.delta")]
    ArgumentsDelta(ArgumentsMore),
    #[serde(rename = "response.function_call_arguments.done")]
    ArgumentsDone(ArgumentsDone),
    #[serde(rename = "response.content_part.done")]
    PartDone(PartNow),
    #[serde(rename = "response.output_item.done")]
    ItemDone(ItemNow),
    #[serde(rename = "response.completed")]
    Completed(ResponseNow),
    #[serde(rename = "response.incomplete")]
    Incomplete(ResponseNow),
    #[serde(rename = "response.failed")]
    Failed(ResponseNow),
}

/// The response as it stands.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ResponseNow {
    /// Of the frame.
    pub sequence_number: u64,
    /// The response.
    pub response: ResponsesAnswer,
}

/// An item as it stands.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ItemNow {
    /// Of the frame.
    pub sequence_number: u64,
    /// Of the item in the output.
    pub output_index: u64,
    /// The item.
    pub item: ResponseItem,
}

/// A part of an item as it stands.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct PartNow {
    /// Of the frame.
    pub sequence_number: u64,
    /// The item.
    pub item_id: String,
    /// Of the item in the output.
    pub output_index: u64,
    /// Always 0.
    pub content_index: u64,
    /// The part.
    pub part: ResponsePart,
}

/// More text.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct TextMore {
    /// Of the frame.
    pub sequence_number: u64,
    /// The item.
    pub item_id: String,
    /// Of the item in the output.
    pub output_index: u64,
    /// Always 0.
    pub content_index: u64,
    /// What is new.
    pub delta: String,
}

/// All of a text.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct TextDone {
    /// Of the frame.
    pub sequence_number: u64,
    /// The item.
    pub item_id: String,
    /// Of the item in the output.
    pub output_index: u64,
    /// Always 0.
    pub content_index: u64,
    /// All of it.
    pub text: String,
}

/// More of a call's arguments.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ArgumentsMore {
    /// Of the frame.
    pub sequence_number: u64,
    /// The item.
    pub item_id: String,
    /// Of the item in the output.
    pub output_index: u64,
    /// JSON, in pieces.
    pub delta: String,
}

/// All of a call's arguments.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ArgumentsDone {
    /// Of the frame.
    pub sequence_number: u64,
    /// The item.
    pub item_id: String,
    /// Of the item in the output.
    pub output_index: u64,
    /// Of the function.
    pub name: String,
    /// JSON.
    pub arguments: String,
}

/// An item of a response's output.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ResponseItem {
    /// Reasoning.
    Reasoning {
        /// Of the item.
        id: String,
        /// `in_progress` or `completed`.
        status: String,
        /// Always empty.
        summary: Vec<Value>,
        /// None, or one.
        content: Vec<ResponsePart>,
    },
    /// What is answered.
    Message {
        /// Of the item.
        id: String,
        /// `in_progress` or `completed`.
        status: String,
        /// `assistant`.
        role: String,
        /// None, or one.
        content: Vec<ResponsePart>,
    },
    /// A call of one of the client's functions.
    FunctionCall {
        /// Of the item.
        id: String,
        /// `in_progress` or `completed`.
        status: String,
        /// What its output is to name.
        call_id: String,
        /// Of the function.
        name: String,
        /// JSON, as far as it has come.
        arguments: String,
    },
}

/// What an item says.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ResponsePart {
    /// Of a `reasoning` item.
    ReasoningText {
        /// The reasoning.
        text: String,
    },
    /// Of a `message` item.
    OutputText {
        /// The text.
        text: String,
        /// Always empty.
        annotations: Vec<Value>,
    },
}
