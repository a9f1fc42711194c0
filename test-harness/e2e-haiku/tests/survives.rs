//! The real engine at temperature 0, and its orchestratord, killed in the middle of answers: what is joined
//! is what nobody interrupted, and its receipt can be verified. `SURVIVE_KILLS` says how often each.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use test_harness_e2e_haiku::{Api, Daemon, Followed, built_binary, provisioned};

const PROMPT: &str = "Write a haiku that includes the word rain";

/// ORCHD-RESUME-001, ORCHD-RESUME-010, ORCHD-VERIFY-001
#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_killed_the_answer_of_the_real_engine_is_the_uninterrupted_one() -> Result<()> {
    provisioned()?;
    let kills: usize = std::env::var("SURVIVE_KILLS").map_or(Ok(3), |kills| kills.parse())?;
    let mut daemon = Daemon::start()?;
    let api = Api::new(daemon.base())?;
    let whole = ask(&api, None).await?;
    let end = whole.end()?.clone();
    ensure!(whole.events.len() > 20, "too short to be cut: {}", whole.text());
    let mut seams = [0, 0];
    for n in 0..kills {
        let api = Api::new(daemon.base())?;
        let cut = ask(&api, Some((1 + n % 8, &|| kill_engine(&daemon)))).await?;
        seams[0] += cut.named("resumed").count();
        same(&cut, &whole, &end).with_context(|| format!("the engine was killed, {n}"))?;
        // Its breaker would open: engines do not die so often.
        let reset = api.http().post(api.url("/v2/pools/haiku/reset")).send().await?;
        ensure!(reset.status().is_success(), "reset answered {}", reset.status());
        ready(&api).await?;
    }
    for n in 0..kills {
        let api = Api::new(daemon.base())?;
        let id = format!("killed-{n}");
        let accepted = api.submit(PROMPT, json!({"task_id": id})).await?;
        let path = accepted["streams"]["sse"].as_str().context("the 202 names no stream")?.to_owned();
        let seen = read_some(&api, &path, 1 + n % 8).await?;
        daemon = daemon.kill_and_start()?;
        let api = Api::new(daemon.base())?;
        let last = seen.rsplit("\nid: ").next().and_then(|rest| rest.lines().next());
        let rest = api.follow(&path, last).await?;
        ensure!(rest.end()?["finish_reason"] == end["finish_reason"]);
        let all = api.follow(&path, None).await?;
        seams[1] += all.named("resumed").count();
        same(&all, &whole, &end).with_context(|| format!("orchestratord was killed, {n}"))?;
    }
    println!("{kills} kills each: {} seams of the engine, {} of orchestratord", seams[0], seams[1]);
    ensure!(seams[0] > 0, "no kill of the engine came in the middle of an answer");

    let api = Api::new(daemon.base())?;
    ready(&api).await?;
    let kept = api.submit(PROMPT, json!({"task_id": "kept", "transcript": true})).await?;
    api.follow(kept["streams"]["sse"].as_str().context("the 202 names no stream")?, None).await?;
    let receipt = api.get("/v2/tasks/kept").await?["receipt"].take();
    for name in ["engine_digest", "build_flags", "model_digest", "chat_template_sha256", "transcript_sha256"]
    {
        ensure!(receipt[name].as_str().is_some() || receipt[name].is_array(), "{name} is missing: {receipt}");
    }
    ensure!(receipt["sampling"]["samplers"].is_array(), "{receipt}");
    ensure!(receipt["slot_mode"] == json!({"slots": 1, "continuous_batching": false}), "{receipt}");
    let output = verify(&daemon, &["kept"])?;
    ensure!(output.0 == Some(0) && output.1.contains("the same answer"), "{output:?}");
    daemon.stop()?;
    Ok(())
}

fn verify(daemon: &Daemon, arguments: &[&str]) -> Result<(Option<i32>, String)> {
    let output = Command::new(built_binary("orchestratord")?)
        .arg("verify")
        .args(arguments)
        .env("ORCHD_ADDR", daemon.base().trim_start_matches("http://"))
        .env("ORCHD_RUNTIME_DIR", daemon.runtime())
        .output()
        .context("running orchestratord verify")?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((output.status.code(), text(&output.stdout) + &text(&output.stderr)))
}

fn same(cut: &Followed, whole: &Followed, end: &Value) -> Result<()> {
    // But for where another engine goes on, the order is that of any stream.
    let events = cut.events.iter().filter(|event| event.name != "resumed").cloned().collect();
    Followed { events }.check_order()?;
    ensure!(cut.text() == whole.text(), "{:?} is not {:?}", cut.text(), whole.text());
    let digest = |end: &Value| end["receipt"]["tokens_sha256"].clone();
    ensure!(digest(cut.end()?) == digest(end), "other tokens: {}", cut.end()?);
    Ok(())
}

type Cut<'a> = (usize, &'a (dyn Fn() -> Result<()> + Sync));

/// One answer; after so many tokens something is done.
async fn ask(api: &Api, cut: Option<Cut<'_>>) -> Result<Followed> {
    let accepted = api.submit(PROMPT, json!({})).await?;
    let path = accepted["streams"]["sse"].as_str().context("the 202 names no stream")?;
    if let Some((tokens, act)) = cut {
        read_some(api, path, tokens).await?;
        act()?;
    }
    api.follow(path, None).await
}

/// Reads so many tokens and lets go of the connection.
async fn read_some(api: &Api, path: &str, tokens: usize) -> Result<String> {
    let mut answer = api.http().get(api.url(path)).send().await?;
    let mut text = String::from("\n");
    while text.matches("\nevent: token\n").count() < tokens || !text.ends_with("\n\n") {
        let Some(bytes) = answer.chunk().await? else { break };
        text.push_str(std::str::from_utf8(&bytes)?);
    }
    Ok(text)
}

fn kill_engine(daemon: &Daemon) -> Result<()> {
    let file = daemon.runtime().join("engines/haiku.r0.json");
    let handoff: Value = serde_json::from_slice(&read(&file)?)?;
    let pid = i32::try_from(handoff["pid"].as_i64().context("the handoff has no pid")?)?;
    match kill(Pid::from_raw(pid), Signal::SIGKILL) {
        // It is dead already, and the next life is not there yet.
        Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
        Err(error) => Err(error).context("killing the engine"),
    }
}

fn read(file: &Path) -> Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("reading {}", file.display()))
}

async fn ready(api: &Api) -> Result<()> {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while api.get("/v2/pools/haiku/health").await?["ready"] != true {
        ensure!(std::time::Instant::now() < deadline, "the pool is not ready within 60 s");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    Ok(())
}
