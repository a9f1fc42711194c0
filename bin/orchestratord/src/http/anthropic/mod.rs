//! Anthropic's Messages API over the same chat as OpenAI's: one request is turned into the other's,
//! and the engine's chunks into Anthropic's events and blocks.

mod convert;
mod count;
mod messages;
mod render;
mod reshape;

pub(super) use count::count_tokens;
pub(super) use messages::messages;
pub(super) use reshape::reshape;
