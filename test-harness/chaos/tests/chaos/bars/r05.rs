//! R5: an engine that exits as soon as it is started.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use test_harness_bdd::Rig;

use crate::house::{House, one_pool};
use crate::run::{Run, reached};

const LAST_WORDS: &str = "the last words of a short life";

pub(super) async fn run(run: Arc<Run>) -> Result<()> {
    let switches = format!("STUB_EXIT_AT_START: '9', STUB_SAY: '{LAST_WORDS}'");
    let house = House::start(&run, &one_pool("", &switches)).await?;
    reached("a first life", || async { Ok(lives(&house.rig) >= 1) }).await?;
    let began = Instant::now();
    // The bar counts what happens in this time.
    tokio::time::sleep_until((began + Duration::from_secs(10)).into()).await;
    run.count("spawns in 10 s", lives(&house.rig), 4..=5);
    let replica = house.replica().await?;
    let error = &replica["last_error"];
    run.fact("cause", error["cause"] == "exit", error["cause"].to_string());
    run.fact("remedy", error["remedy"].as_str().is_some_and(|text| !text.is_empty()), "");
    let told = error["log_tail"].as_array().is_some_and(|lines| lines.iter().any(|line| line == LAST_WORDS));
    run.fact("its last lines in the API", told, "");
    let due = replica["next_attempt_ms"].as_u64();
    run.fact(
        "when the next attempt is due",
        due.is_some() || replica["phase"] == "starting",
        format!("{due:?}"),
    );
    if run.full {
        // And in this.
        tokio::time::sleep_until((began + Duration::from_secs(600)).into()).await;
        run.count("spawns in 600 s", lives(&house.rig), 6..=12);
        let phase = house.replica().await?["phase"].to_string();
        run.fact("phase", phase.contains("breaker_open") || phase.contains("starting"), phase);
    }
    Ok(())
}

/// Each life says its last words once.
fn lives(rig: &Rig) -> usize {
    let log = std::fs::read(rig.path("runtime/run/llamacpp-p.r0.log")).unwrap_or_default();
    String::from_utf8_lossy(&log).lines().filter(|line| *line == LAST_WORDS).count()
}
