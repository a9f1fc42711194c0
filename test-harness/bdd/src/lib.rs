//! What a scenario stands on: directories and processes of its own, started from the built binaries as
//! a user would start them. The steps are beside the features, in `tests/`.
#![forbid(unsafe_code)]

mod process;
mod rig;
mod wait;

pub use process::Process;
pub use rig::{Ended, Rig, listening, lives};
pub use wait::{until, until_within};
