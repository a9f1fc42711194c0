//! The features of `features/`, on the built binaries. Each scenario has directories, ports and
//! processes of its own; `stub-llama` plays the engine where something has to go wrong, the real
//! `llama-server` where the claim is about the engine.
#![allow(clippy::unwrap_used, reason = "a failed step of a scenario should panic")]
#![allow(clippy::print_stdout, reason = "it says where its evidence is")]

mod artifacts;
mod control;
mod daemons;
mod engines;
mod evidence;
mod prepare;
mod streams;
mod tasks;
mod watching;
mod world;

use std::process::ExitCode;
use std::sync::Arc;

use cucumber::World as _;
use cucumber::writer::Stats as _;
use evidence::Evidence;
use world::Lab;

#[tokio::main]
async fn main() -> ExitCode {
    let evidence = Arc::new(Evidence::begin().unwrap());
    let of_each = Arc::clone(&evidence);
    // Scenarios are processes that wait for one another; more than a few at once only wait for a core.
    let writer = Lab::cucumber()
        .max_concurrent_scenarios(6)
        .fail_on_skipped()
        .after(move |feature, _, scenario, how, lab| {
            let evidence = Arc::clone(&of_each);
            Box::pin(async move {
                evidence.ended(feature, scenario, how).unwrap();
                if let Some(lab) = lab {
                    lab.dismiss().await.unwrap();
                    let left = lab.rig.engines();
                    lab.rig.kill_engines();
                    assert!(left.is_empty(), "{}: it left engines behind: {left:?}", scenario.name);
                }
            })
        })
        .run(concat!(env!("CARGO_MANIFEST_DIR"), "/features"))
        .await;
    println!("proof bundle: {}", evidence.finish().unwrap().display());
    if writer.execution_has_failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
