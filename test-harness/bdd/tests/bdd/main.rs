//! The features of `features/`, on the built binaries. Each scenario has directories, ports and
//! processes of its own; `stub-llama` plays the engine where something has to go wrong, the real
//! `llama-server` where the claim is about the engine.
#![allow(clippy::unwrap_used, reason = "a failed step of a scenario should panic")]

mod control;
mod engines;
mod prepare;
mod streams;
mod tasks;
mod world;

use cucumber::World as _;
use world::Lab;

#[tokio::main]
async fn main() {
    // Scenarios are processes that wait for one another; more than a few at once only wait for a core.
    Lab::cucumber()
        .max_concurrent_scenarios(6)
        .fail_on_skipped()
        .after(|_, _, _, _, lab| {
            Box::pin(async move {
                if let Some(lab) = lab {
                    lab.dismiss().await.unwrap();
                }
            })
        })
        .run_and_exit(concat!(env!("CARGO_MANIFEST_DIR"), "/features"))
        .await;
}
