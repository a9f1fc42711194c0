//! Starting processes right, knowing them again, and ending them: a new session, no inherited
//! descriptors, a given environment, a log file, a pidfd, and an identity that survives the
//! manager.
//!
//! Holds the only `unsafe` code of the workspace (between fork and exec). Knows nothing of engines,
//! health or restarts. Linux 5.4 or newer: pidfds are required, everything newer is detected.

mod adopted;
mod busy;
mod child;
mod identity;
mod launch;
mod listening;
mod memory_kills;
mod observed;
mod pidfd_info;
mod procfs;
mod sandbox;
mod spawn_id;
mod sweep;
mod syscalls;

pub use adopted::{AdoptError, Adopted};
pub use busy::spawn_when_written;
pub use child::{Child, Exit, WaitError};
pub use identity::{IdentityError, ProcessIdentity};
pub use launch::{Launch, Limit, SpawnError};
pub use listening::{Holder, holder_of_port, listens_on};
pub use memory_kills::MemoryKills;
pub use observed::{is_stopped, loaded_bytes};
pub use sandbox::{Sandbox, SandboxError};
pub use spawn_id::{SPAWN_ID_VARIABLE, SpawnId};
pub use sweep::{end_marked, processes_with, sweep};
pub use syscalls::FilterError;
