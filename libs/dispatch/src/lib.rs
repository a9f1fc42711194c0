//! Admission, placement and dispatch: the control plane without its edges.
//!
//! [`Dispatch::submit`] puts a task in its pool's bounded queue; one loop per pool matches waiting
//! tasks with free slots ([`place()`] decides, the registry leases); one task per running
//! generation pumps the engine's stream into the task's log. Readers follow the log; nobody here
//! ever waits for one.
//!
//! A task that is submitted durably is in the journal before it is acknowledged, and an earlier
//! process's tasks are taken back from there.
//!
//! Knows no HTTP and no files, and starts no engines. What a task's owner may see or do is decided
//! by [`Owner`]; who the owner is, by the edge.
#![forbid(unsafe_code)]

mod admission;
mod admit;
mod asked;
mod beside;
mod budget;
mod caller;
mod configure;
mod core;
mod dispatcher;
mod distrust;
mod durable;
mod ending;
mod estimate;
mod foresight;
mod keep;
mod limits;
mod loops;
mod metrics;
mod moves;
mod names;
mod pace;
mod place;
mod pool;
mod queue;
mod quota;
mod record;
mod restore;
mod run;
mod said;
mod sessions;
#[cfg(test)]
mod simulation;
mod size;
mod spans;
mod spec;
mod store;
mod task;
mod traced;
mod unkept;
mod usage;
mod watchers;

pub use admission::{AdmissionError, UnknownModel};
pub use caller::CallerId;
pub use dispatcher::Dispatch;
pub use estimate::Measured;
pub use limits::Limits;
pub use metrics::Metrics;
pub use moves::{Moved, TaskMoves};
pub use place::{Decision, Insist, InvalidPlacement, PlacementOutcome, Wish, place};
pub use quota::LimitReached;
pub use restore::TakenBack;
pub use sessions::{Home, SessionSpent};
pub use spans::{Attribute, Side, Span, SpanBuffer, Spans};
pub use spec::{Detach, Owner, PoolMeasured, PoolSpec, TaskFilter, TaskPage, TaskSpec};
pub use task::{QueuePlace, Task};
