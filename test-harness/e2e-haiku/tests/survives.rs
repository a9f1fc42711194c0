//! Client, real engine at temperature 0 and orchestratord, each killed at random tokens: what is joined is
//! what nobody interrupted, and its receipt can be verified. `SURVIVE_KILLS` says how often each,
//! `SURVIVE_SEED` where.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use test_harness_e2e_haiku::{Api, Daemon, Event, Followed, Reader, built_binary, provisioned};

/// The engine is killed so often at most until one kill came in the middle of an answer: on a machine that is
/// busy elsewhere it has said everything before its reader has read that far.
const MOST_KILLS: usize = 50;
const PROMPT: &str = "Write a haiku that includes the word rain";

/// After how many tokens the next one is killed.
struct Dice {
    seed: u64,
    tokens: usize,
}

impl Dice {
    fn new(tokens: usize) -> Result<Self> {
        let seed = std::env::var("SURVIVE_SEED").map_or(Ok(20_261_128), |seed| seed.parse())?;
        Ok(Self { seed, tokens })
    }

    fn token(&mut self) -> usize {
        // Knuth's MMIX constants; the upper bits are the better ones.
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        1 + (self.seed >> 33) as usize % (self.tokens - 1)
    }
}

/// ORCHD-RESUME-001, ORCHD-RESUME-010, ORCHD-VERIFY-001
#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_killed_the_answer_of_the_real_engine_is_the_uninterrupted_one() -> Result<()> {
    provisioned()?;
    let kills: usize = std::env::var("SURVIVE_KILLS").map_or(Ok(3), |kills| kills.parse())?;
    let mut daemon = Daemon::start()?;
    let api = Api::new(daemon.base())?;
    let path = submit(&api, "whole").await?;
    let whole = api.follow(&path, None).await?;
    ensure!(whole.events.len() > 20, "too short to be cut: {}", whole.text());
    let mut dice = Dice::new(whole.named("token").count())?;
    let mut seams = [0, 0];
    for n in 0..kills {
        let api = Api::new(daemon.base())?;
        let (path, at) = (submit(&api, &format!("left-{n}")).await?, dice.token());
        let seen = read_some(&api, &path, at).await?;
        let joined = read_on(&api, &path, seen).await?;
        ensure!(joined.named("resumed").count() == 0, "no engine was lost: {joined:?}");
        same(&joined, &whole).with_context(|| format!("the client was killed at token {at}"))?;
    }
    for n in 0..kills.max(MOST_KILLS) {
        if n >= kills && seams[0] > 0 {
            break;
        }
        let api = Api::new(daemon.base())?;
        let (path, at) = (submit(&api, &format!("lost-{n}")).await?, dice.token());
        let seen = read_some(&api, &path, at).await?;
        kill_engine(&daemon)?;
        let joined = read_on(&api, &path, seen).await?;
        seams[0] += joined.named("resumed").count();
        same(&joined, &whole).with_context(|| format!("the engine was killed at token {at}"))?;
        // Its breaker would open: engines do not die so often.
        let reset = api.http().post(api.url("/v2/pools/haiku/reset")).send().await?;
        ensure!(reset.status().is_success(), "reset answered {}", reset.status());
        ready(&api).await?;
    }
    for n in 0..kills {
        let api = Api::new(daemon.base())?;
        let (path, at) = (submit(&api, &format!("killed-{n}")).await?, dice.token());
        let seen = read_some(&api, &path, at).await?;
        daemon = daemon.kill_and_start()?;
        let api = Api::new(daemon.base())?;
        let joined = read_on(&api, &path, seen).await?;
        seams[1] += joined.named("resumed").count();
        same(&joined, &whole).with_context(|| format!("orchestratord was killed at token {at}"))?;
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

fn same(cut: &Followed, whole: &Followed) -> Result<()> {
    // But for where another engine goes on, the order is that of any stream.
    let events = cut.events.iter().filter(|event| event.name != "resumed").cloned().collect();
    Followed { events }.check_order()?;
    ensure!(cut.text() == whole.text(), "{:?} is not {:?}", cut.text(), whole.text());
    let of = |end: &Value| [end["finish_reason"].clone(), end["receipt"]["tokens_sha256"].clone()];
    ensure!(of(cut.end()?) == of(whole.end()?), "another end: {}", cut.end()?);
    Ok(())
}

/// The path of the stream of a task with that id.
async fn submit(api: &Api, id: &str) -> Result<String> {
    let accepted = api.submit(PROMPT, json!({"task_id": id})).await?;
    Ok(accepted["streams"]["sse"].as_str().context("the 202 names no stream")?.to_owned())
}

/// Reads so many tokens and lets go of the connection.
async fn read_some(api: &Api, path: &str, tokens: usize) -> Result<Vec<Event>> {
    let (mut reader, mut seen) = (Reader::open(api, path, None).await?, Vec::new());
    while seen.iter().filter(|event: &&Event| event.name == "token").count() < tokens {
        let Some(event) = reader.next().await? else { break };
        seen.push(event);
    }
    Ok(seen)
}

/// Reads the rest, behind the last event that was seen.
async fn read_on(api: &Api, path: &str, mut events: Vec<Event>) -> Result<Followed> {
    let last = events.iter().rev().find_map(|event| event.id.clone());
    events.extend(api.follow(path, last.as_deref()).await?.events);
    Ok(Followed { events })
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
