//! The whole journey on the real engine: what the tests of this package, and others that need the
//! real daemons, stand on. Starts the built binaries as a user would; skips nothing and falls back
//! to nothing.
#![forbid(unsafe_code)]

mod api;
mod client;
mod contract;
mod daemon;
mod engine;
mod minute;
mod schema;
mod stream;

pub use api::{Api, Event, Followed, checked};
pub use client::{Client, Request};
pub use contract::Contract;
pub use daemon::Daemon;
pub use engine::{built_binary, provisioned};
pub use minute::{current_minute, spelled};
pub use schema::Schema;
pub use stream::Reader;
