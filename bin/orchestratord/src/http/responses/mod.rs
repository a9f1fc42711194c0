//! OpenAI's Responses API, as far as nothing needs to be kept between requests: the same queue, leases and
//! registry, another rendering.

mod convert;
mod create;
mod render;

pub(super) use create::create;
