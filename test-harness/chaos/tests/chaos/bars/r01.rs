//! R1: the only engine is killed in the middle of an answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::house::{House, recorded, signal};
use crate::run::{Run, reached};

/// What the fake engine takes to load, so that there is a time without one.
const LOAD: Duration = Duration::from_millis(300);

pub(super) async fn run(run: Arc<Run>) -> Result<()> {
    for mode in ["fail", "resume"] {
        kill_mid_stream(&run, mode).await?;
    }
    Ok(())
}

async fn kill_mid_stream(run: &Run, mode: &str) -> Result<()> {
    let switches = format!("STUB_TOKEN_MS: '10', STUB_LOAD_MS: '{}'", LOAD.as_millis());
    let house = House::ready(run, "deterministic: true", &switches).await?;
    let task = house.submit(json!({"max_tokens": 500, "on_interrupt": mode})).await?;
    let mut reader = house.follow(&task, None).await?;
    let at = 40 + run.chance(20);
    reader.until(|event| event.name == "token" && event.data["i"] == at).await?;
    let engine = house.engine()?;
    let killed = Instant::now();
    signal(engine, Signal::SIGKILL)?;

    let rig = &house.rig;
    let not_ready = reached("not ready", || async { Ok(house.health().await?["ready"] == false) });
    let gone = reached("the handoff is gone", || async { Ok(rig.handoff("p", "r0").is_none()) });
    let respawned =
        reached("an engine is started", || async { Ok(recorded(rig).is_some_and(|pid| pid != engine)) });
    let stream = async {
        let mut next = at + 1;
        let mut seam = false;
        loop {
            let event = reader.until(|_| true).await?;
            match event.name.as_str() {
                "token" => {
                    ensure!(event.data["i"] == next, "token {} follows {}", event.data["i"], next - 1);
                    next += 1;
                    // What was on its way when the engine died comes before the seam.
                    if seam {
                        return anyhow::Ok((Instant::now(), "token".to_owned(), reader));
                    }
                }
                "resumed" => {
                    seam = true;
                    ensure!(event.data["from_index"] == next, "resumed at {}, not {next}", event.data);
                }
                name => {
                    let code = event.data["code"].as_str().unwrap_or_default();
                    return Ok((Instant::now(), format!("{name} {code}"), reader));
                }
            }
        }
    };
    let (not_ready, gone, respawned, stream) = tokio::join!(not_ready, gone, respawned, stream);
    let (when, what, mut reader) = stream?;
    if mode == "fail" {
        run.fact("fail: the stream ends with", what == "error ENGINE_LOST", what);
        run.time("within", when - killed, Duration::from_millis(250));
    } else {
        run.fact("resume: goes on with", what == "token", what);
        run.time("next token", when - killed, Duration::from_secs(1) + LOAD);
        let end = reader.until(|event| event.name == "end" || event.name == "error").await?;
        run.fact("tokens in all", end.data["tokens_out"] == 500, end.data["tokens_out"].to_string());
    }
    run.time(format!("{mode}: not ready"), not_ready? - killed, Duration::from_millis(250));
    run.time(format!("{mode}: handoff gone"), gone? - killed, Duration::from_millis(500));
    run.time(format!("{mode}: respawned"), respawned? - killed, Duration::from_secs(1));
    Ok(())
}
