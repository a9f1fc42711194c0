//! Daemons: started, killed, stopped, and what they say.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cucumber::{given, then, when};
use nix::sys::signal::Signal;
use test_harness_bdd::{Process, until};

use crate::world::Lab;

#[given("orchestratord starts anew")]
async fn start_anew(lab: &mut Lab) -> Result<()> {
    lab.dismiss().await?;
    start(lab).await
}

#[given("orchestratord runs")]
#[when("orchestratord starts")]
async fn start(lab: &mut Lab) -> Result<()> {
    let (process, api) = lab.rig.start_orchestratord().await?;
    (lab.orchestratord, lab.api) = (Some(process), Some(api));
    Ok(())
}

#[given(expr = "orchestratord runs on {word}")]
async fn start_on(lab: &mut Lab, address: String) -> Result<()> {
    let (process, api) = lab.rig.start_orchestratord_on(&address).await?;
    (lab.orchestratord, lab.api) = (Some(process), Some(api));
    Ok(())
}

#[given("pool-managerd runs as its own daemon")]
#[when("pool-managerd starts again")]
async fn manager(lab: &mut Lab) -> Result<()> {
    let mut command: Command = lab.rig.program("pool-managerd")?;
    command.args(["--config", "config.yaml"]);
    let process = Process::start(command, lab.rig.path("pool-managerd.log"))?;
    lab.manager = Some(process);
    Ok(())
}

#[when("pool-managerd is killed")]
async fn kill_manager(lab: &mut Lab) -> Result<()> {
    let manager = lab.manager.as_mut().context("pool-managerd does not run")?;
    manager.signal(Signal::SIGKILL)?;
    manager.ended().await?;
    Ok(())
}

#[when("a second pool-managerd is run")]
async fn second_manager(lab: &mut Lab) -> Result<()> {
    lab.ended = Some(lab.rig.run("pool-managerd", &[], &[]).await?);
    Ok(())
}

#[when("orchestratord is asked to stop")]
async fn stop(lab: &mut Lab) -> Result<()> {
    let process = lab.orchestratord.as_mut().context("orchestratord does not run")?;
    process.signal(Signal::SIGTERM)?;
    let (status, took) = process.ended().await?;
    ensure!(status.success(), "it ended with {status} and said:\n{}", process.said());
    lab.noted.insert("stop".to_owned(), took.as_secs_f64());
    Ok(())
}

#[when("orchestratord is killed")]
async fn kill_orchestratord(lab: &mut Lab) -> Result<()> {
    let process = lab.orchestratord.as_mut().context("orchestratord does not run")?;
    process.signal(Signal::SIGKILL)?;
    process.ended().await?;
    Ok(())
}

#[then(expr = "it took less than {int} seconds")]
fn took(lab: &mut Lab, seconds: u64) -> Result<()> {
    let took = Duration::from_secs_f64(*lab.noted.get("stop").context("nothing was stopped")?);
    ensure!(took < Duration::from_secs(seconds), "it took {took:?}");
    Ok(())
}

#[then(expr = "orchestratord's log says {string} of {string} {int} time(s)")]
fn log_says_times(lab: &mut Lab, words: String, whom: String, times: usize) -> Result<()> {
    let said = lab.orchestratord.as_ref().context("orchestratord does not run")?.said();
    let found = said.lines().filter(|line| line.contains(&words) && line.contains(&whom)).count();
    ensure!(found == times, "it said it {found} times:\n{said}");
    Ok(())
}

/// What was told when: looking at the pauses as they pass would ask how fast the machine is.
#[then(expr = "orchestratord's log tells of each loss of {string} a longer pause than of the one before")]
fn longer_pauses(lab: &mut Lab, replica: String) -> Result<()> {
    let said = lab.orchestratord.as_ref().context("orchestratord does not run")?.said();
    let lines = said.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let told =
        lines.filter(|line| line["fields"]["replica"] == replica && !line["fields"]["losses"].is_null());
    let pauses: Option<Vec<f64>> = told.map(|line| seconds(line["fields"]["next"].as_str()?)).collect();
    let pauses = pauses.with_context(|| format!("a loss without its pause:\n{said}"))?;
    let longer = pauses.windows(2).all(|two| two[0] < two[1]);
    ensure!(pauses.len() >= 3 && longer, "they are {pauses:?} seconds");
    Ok(())
}

/// Of `Restart(1.25s)`.
fn seconds(next: &str) -> Option<f64> {
    let length = next.split_once('(')?.1.strip_suffix(')')?;
    let unit = length.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let of_one = match &length[unit..] {
        "s" => 1.0,
        "ms" => 1e-3,
        "µs" => 1e-6,
        "ns" => 1e-9,
        _ => return None,
    };
    Some(length[..unit].parse::<f64>().ok()? * of_one)
}

#[then(expr = "orchestratord's log says {string}")]
async fn log_says(lab: &mut Lab, words: String) -> Result<()> {
    let process = lab.orchestratord.as_ref().context("orchestratord does not run")?;
    until(&format!("the log says {words}"), || async { Ok(process.said().contains(&words)) }).await?;
    Ok(())
}

#[then(expr = "orchestratord's log never says {string}")]
fn log_never_says(lab: &mut Lab, words: String) -> Result<()> {
    let said = lab.orchestratord.as_ref().context("orchestratord does not run")?.said();
    ensure!(!said.contains(&words), "it said:\n{said}");
    Ok(())
}
