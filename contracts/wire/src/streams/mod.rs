//! What one frame of a streamed `/v1` answer holds: the clients of others read these, so each event that
//! the front door sends is written down here, and the suites hold every frame that they receive against it.
//!
//! A request that does not stream is answered by the types of `openai`, `responses` and `anthropic`.

mod messages;
mod openai;
mod responses;

pub use messages::{MessageBlock, MessageBlockDelta, MessageEnded, MessagesEvent};
pub use openai::{
    ChatCompletionChunk, ChatCompletionFrame, ChunkChoice, ChunkDelta, ChunkObject, PieceObject,
    TextCompletionFrame, TextCompletionPiece, ToolCallDelta,
};
pub use responses::{
    ArgumentsDone, ArgumentsMore, ItemNow, PartNow, ResponseItem, ResponseNow, ResponsePart, ResponsesEvent,
    TextDone, TextMore,
};
