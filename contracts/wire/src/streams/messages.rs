//! The events of a streamed answer of Anthropic's Messages API.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::anthropic::{MessagesAnswer, MessagesErrorBody, MessagesUsage};

/// The data of one frame of a streamed `/v1/messages`; its event name is the `type`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum MessagesEvent {
    /// The first: the message without content.
    MessageStart {
        /// The message.
        message: MessagesAnswer,
    },
    /// A block begins.
    ContentBlockStart {
        /// Of the block.
        index: u64,
        /// The block, empty.
        content_block: MessageBlock,
    },
    /// A block goes on.
    ContentBlockDelta {
        /// Of the block.
        index: u64,
        /// What is new.
        delta: MessageBlockDelta,
    },
    /// A block is whole.
    ContentBlockStop {
        /// Of the block.
        index: u64,
    },
    /// Why the message ended, and what it used.
    MessageDelta {
        /// Why it ended.
        delta: MessageEnded,
        /// Token counts, from the engine.
        usage: MessagesUsage,
    },
    /// The last.
    MessageStop,
    /// The task failed; nothing follows.
    Error {
        /// What went wrong.
        error: MessagesErrorBody,
    },
}

/// A block of a message.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum MessageBlock {
    /// Reasoning, where the client asked to see it.
    Thinking {
        /// The reasoning.
        thinking: String,
        /// Always empty.
        signature: String,
    },
    /// Text.
    Text {
        /// The text.
        text: String,
    },
    /// A call of one of the client's tools.
    ToolUse {
        /// Of the call.
        id: String,
        /// Of the tool.
        name: String,
        /// What it is called with; empty where it follows in pieces.
        input: Value,
    },
}

/// What is new in a block.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum MessageBlockDelta {
    /// Reasoning.
    ThinkingDelta {
        /// The reasoning.
        thinking: String,
    },
    /// Text.
    TextDelta {
        /// The text.
        text: String,
    },
    /// A piece of a call's input.
    InputJsonDelta {
        /// JSON, in pieces.
        partial_json: String,
    },
}

/// Why a message ended.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct MessageEnded {
    /// As in the answer that does not stream.
    pub stop_reason: String,
    /// Always null.
    pub stop_sequence: Option<String>,
}
