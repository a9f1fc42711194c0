//! The OpenAI-compatible front door: the same queue, leases and registry, another rendering.

mod chat;
mod collect;
mod models;
mod params;
mod render;

pub(super) use chat::chat;
pub(super) use models::models;
