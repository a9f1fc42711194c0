//! What must hold when things break, measured as a black box on the built binaries: each bar is
//! something that is broken, what was promised for that case, and the numbers that were found.
//!
//! `cargo test -p test-harness-chaos` is the fast pass: each bar once, fewer repetitions and shorter
//! streams, never a weaker promise. `-- --full` takes the full lengths, `-- --runs 20` repeats each bar,
//! `-- R1 R5` chooses, `-- --seed N` repeats the chances of an earlier run. One table comes out, and a
//! proof bundle with it.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the table is what a person reads")]

mod bars;
mod house;
mod load;
mod measure;
mod options;
mod processes;
mod report;
mod run;
/// model-provisioner's own web server for tests, which can break off, stall and lie.
#[path = "../../../../libs/provisioners/model-provisioner/tests/fetch/server.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "another suite uses the rest, and panics in its tests")]
mod server;
mod suite;

use std::process::ExitCode;

use options::{Asked, Options};

fn main() -> ExitCode {
    match Options::read(std::env::args().skip(1)) {
        Ok(Asked::Run(options)) => suite::run(&options),
        Ok(Asked::List { terse }) => {
            for bar in bars::all() {
                if !terse {
                    println!("{:<4} {}: {}", bar.id, bar.injected, bar.promised);
                }
            }
            if terse {
                println!("chaos: test");
            }
            ExitCode::SUCCESS
        }
        Ok(Asked::Nothing(why)) => {
            println!("{why}");
            ExitCode::SUCCESS
        }
        Err(mistake) => {
            eprintln!("{mistake}");
            ExitCode::from(2)
        }
    }
}
