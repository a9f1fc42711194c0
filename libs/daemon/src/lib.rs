//! What both daemons do as processes, whatever they serve: hear the signals that ask them to end, and
//! follow their configuration file. Knows no pool and no engine.
#![forbid(unsafe_code)]

mod follow;
mod signals;

pub use follow::{Followed, follow};
pub use signals::Signals;
