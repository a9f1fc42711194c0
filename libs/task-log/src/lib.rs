//! Every event of a task in order: one [`LogWriter`] appends, any number of [`Follower`]s read,
//! each from any [`Position`], while it is written and after.
//!
//! In memory and bounded by bytes; a [`Journal`] also keeps the logs of accepted tasks on disk, with
//! what was accepted, and reads them back after a restart. Knows nothing of HTTP or engines: it
//! numbers what it is given and renders nothing. [`Artifacts`] keep what is to stay longer.
#![forbid(unsafe_code)]
#![allow(unexpected_cfgs, reason = "cfg(loom) is given by hand, for the models")]

pub mod artifacts;
mod entry;
mod follower;
mod held;
pub mod journal;
mod lives;
mod log;
mod published;
mod writer;

pub use artifacts::Artifacts;
pub use entry::{Entry, Position, PositionError};
pub use follower::Follower;
pub use held::{Behind, HeldLog};
pub use journal::Journal;
pub use log::{Readers, TaskLog};
pub use writer::{Full, LogWriter};
