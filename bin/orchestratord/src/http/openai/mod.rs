//! The OpenAI-compatible front door: the same queue, leases and registry, another rendering.

mod chat;
mod collect;
mod completions;
mod models;
mod once;
mod params;
mod render;

pub(super) use chat::{chat, check};
pub(super) use collect::Joined;
pub(super) use completions::completions;
pub(super) use models::{model, models};
pub(super) use once::{embeddings, rerank};
