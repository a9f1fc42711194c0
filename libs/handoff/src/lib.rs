//! The directory of handoff files: names, atomic publish, withdraw, safe read, scan and diff.
//!
//! pool-managerd writes here, orchestratord reads; neither trusts the other's file to be whole or
//! well-meant. Nothing here watches the directory (a watcher only wakes a scanner), speaks HTTP or
//! knows the registry. All calls block: keep them off the async threads.
#![forbid(unsafe_code)]

mod claims;
mod dir;
mod read;
mod scan;
mod url;

pub use claims::{Change, Claims};
pub use dir::{HandoffDir, HandoffError};
pub use read::{MAX_FILE_BYTES, RejectReason};
pub use scan::{Claim, Rejected, Scan};
pub use url::{EngineUrl, EngineUrlError};
