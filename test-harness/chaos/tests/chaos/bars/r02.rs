//! R2: the engine is stopped by a signal, and stays there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::house::{House, signal};
use crate::processes;
use crate::run::{Run, reached};

pub(super) async fn run(run: Arc<Run>) -> Result<()> {
    let (idle, busy) = tokio::join!(stop(&run, false), stop(&run, true));
    idle.and(busy)
}

async fn stop(run: &Run, mid_stream: bool) -> Result<()> {
    let house = House::ready(run, "", "STUB_TOKEN_MS: '20'").await?;
    let mut reader = None;
    if mid_stream {
        let task = house.submit(json!({"max_tokens": 5000, "on_interrupt": "fail"})).await?;
        let mut stream = house.follow(&task, None).await?;
        let at = 10 + run.chance(20);
        stream.until(|event| event.name == "token" && event.data["i"] == at).await?;
        reader = Some(stream);
    }
    let engine = house.engine()?;
    let stopped = Instant::now();
    signal(engine, Signal::SIGSTOP)?;
    let error = async {
        let Some(reader) = &mut reader else { return Ok(None) };
        let event = reader.until(|event| event.name == "error" || event.name == "end").await?;
        anyhow::Ok(Some((Instant::now(), event)))
    };
    let not_ready = reached("not ready", || async { Ok(house.health().await?["ready"] == false) });
    let replaced = async {
        reached("replaced", || async {
            Ok(house.engine().is_ok_and(|pid| pid != engine) && house.health().await?["ready"] == true)
        })
        .await
    };
    let (error, not_ready, replaced) = tokio::join!(error, not_ready, replaced);
    let when = if mid_stream { "mid-stream" } else { "idle" };
    run.time(format!("{when}: not ready"), not_ready? - stopped, Duration::from_secs(5));
    if let Some((at, event)) = error? {
        run.time("stream error", at - stopped, Duration::from_secs(10));
        let code = event.data["code"].as_str().unwrap_or("none");
        run.fact("code", ["ENGINE_LOST", "ENGINE_STALLED"].contains(&code), code);
    }
    run.time(format!("{when}: replaced"), replaced? - stopped, Duration::from_secs(15));
    // pool-managerd tells it when it has collected the process.
    reached("the cause is told", || async { Ok(house.replica().await?["last_error"].is_object()) }).await?;
    let cause = house.replica().await?["last_error"]["cause"].as_str().unwrap_or("none").to_owned();
    run.fact(format!("{when}: cause"), cause == "suspended", cause);
    run.fact(format!("{when}: the stopped one is gone"), !processes::lives(engine), "");
    Ok(())
}
