//! `engine-provisioner`: prepares every pool of a configuration, or says what that would take.
//! Results on stdout, progress on stderr, exit codes as INTERFACES lists them.
#![forbid(unsafe_code)]

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(cli::run(std::env::args_os()))
}
