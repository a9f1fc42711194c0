//! Every event of a task in order: one [`LogWriter`] appends, any number of [`Follower`]s read,
//! each from any [`Position`], while it is written and after.
//!
//! In memory and bounded by bytes. Knows nothing of HTTP or engines: it numbers what it is given
//! and renders nothing. Entries are kept in fixed chunks that never move, so that a durable log
//! can write a full chunk out as a segment.
#![forbid(unsafe_code)]

mod entry;
mod follower;
mod log;
mod writer;

pub use entry::{Entry, Position, PositionError};
pub use follower::Follower;
pub use log::{Readers, TaskLog};
pub use writer::{Full, LogWriter};
