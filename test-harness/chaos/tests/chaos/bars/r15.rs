//! R15: orchestratord is killed with a long queue and streams under way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::house::{Engine, House, one_pool};
use crate::run::{Run, reached, reached_within};

const STREAMS: usize = 4;
const STREAM_TOKENS: usize = 800;
const QUEUED_TOKENS: usize = 4;

/// Clients that submit at once.
const AT_ONCE: usize = 20;

pub(super) async fn run(run: Arc<Run>) -> Result<()> {
    for _ in 0..run.pick(1, 3) {
        kill(&run).await?;
    }
    Ok(())
}

async fn kill(run: &Run) -> Result<()> {
    let queued = run.pick(200, 500);
    let keys = format!("slots: {STREAMS}, ctx: 4096, queue: {{ capacity: 600 }}");
    let config = one_pool(&keys, "STUB_TOKEN_MS: '15'");
    let mut house = House::start(run, &config).await?;
    house.is_ready().await?;
    let mut tasks: BTreeMap<String, usize> = BTreeMap::new();
    let mut readers = Vec::new();
    for n in 0..STREAMS {
        let more =
            json!({"max_tokens": STREAM_TOKENS, "prompt": format!("stream {n}"), "detach_grace_ms": 600_000});
        let task = house.submit(more).await?;
        readers.push((task.clone(), house.follow(&task, None).await?, Vec::new()));
        tasks.insert(task, STREAM_TOKENS);
    }
    let at = &house;
    let asked = async {
        let mut accepted = Vec::new();
        for some in (0..queued).collect::<Vec<_>>().chunks(AT_ONCE) {
            let submit = async |n: usize| {
                let prompt = format!("queued {n}");
                let more = json!({"max_tokens": QUEUED_TOKENS, "prompt": prompt, "detach_grace_ms": 600_000});
                at.submit(more).await
            };
            accepted.extend(futures_util::future::try_join_all(some.iter().map(|n| submit(*n))).await?);
        }
        anyhow::Ok(accepted)
    };
    // Read until all are accepted and a few tokens more; what was read must be there afterwards.
    let read = async {
        for (_, reader, seen) in &mut readers {
            loop {
                let event = reader.until(|event| event.name != "started").await?;
                ensure!(event.name == "token", "a stream ended early: {event:?}");
                seen.push(event);
                if seen.len() >= 20 {
                    break;
                }
            }
        }
        anyhow::Ok(())
    };
    let (asked, read) = tokio::join!(asked, read);
    read?;
    tasks.extend(asked?.into_iter().map(|task| (task, QUEUED_TOKENS)));
    let waiting = house.api.counter("orchd_queue_depth").await?;
    house.orchestratord.signal(Signal::SIGKILL)?;
    let killed = Instant::now();
    house.orchestratord.ended().await?;
    let rig = Arc::clone(&house.rig);
    drop(house);
    let house = House::start_on(Arc::clone(&rig)).await?;
    let ready = house.is_ready().await?;
    run.told("queued at the kill", format!("{waiting}"));
    run.time("ready again", ready - killed, Duration::from_secs(2));

    // What was read before is there again, and each goes on to its end.
    let mut wrong = Vec::new();
    for (task, _, seen) in &readers {
        let whole = house.api.follow(&format!("/v2/tasks/{task}/events"), None).await?;
        let tokens: Vec<_> = whole.named("token").collect();
        let same = seen.iter().zip(&tokens).all(|(before, after)| before == *after);
        let in_order = tokens.iter().enumerate().all(|(n, token)| token.data["i"] == n as u64);
        let ended = whole.events.last().map(|event| event.name.clone()).unwrap_or_default();
        if !same || !in_order || tokens.len() != STREAM_TOKENS || ended != "end" {
            wrong.push(format!("{task}: same {same}, in order {in_order}, {} tokens, {ended}", tokens.len()));
        }
    }
    run.fact("streams whole and as they were read", wrong.is_empty(), wrong.join("; "));

    let patience = Duration::from_secs(120);
    reached_within("nothing waits or runs", patience, || async {
        let open = async |state: &str| -> Result<usize> {
            let list = house.api.get(&format!("/v2/tasks?state={state}&limit=1")).await?;
            Ok(list["tasks"].as_array().map_or(0, Vec::len))
        };
        Ok(open("queued").await? + open("running").await? == 0)
    })
    .await?;
    let mut lost = 0;
    let mut tokens = 0;
    for (task, expected) in &tasks {
        let view: Value = house.api.get(&format!("/v2/tasks/{task}")).await.unwrap_or_default();
        let out = view["tokens_out"].as_u64().unwrap_or(0) as usize;
        tokens += out;
        lost += usize::from(view["state"] != "done" || out != *expected);
    }
    run.count(format!("lost or not whole of {}", tasks.len()), lost, 0..=0);
    // The engine outlived the kill: had anything run twice, it would have generated more. What it had
    // begun and nobody had recorded is at most a piece of each slot's task.
    let generated = Engine::of(&rig).context("the engine")?.tokens().await? as usize;
    let spare = generated.saturating_sub(tokens);
    run.count("tokens generated beyond those told", spare, 0..=STREAMS * 60);
    // The same by what was asked for. A task that had begun and said nothing may begin again, so each slot's
    // task may, where the streams did not hold all of them; one that had spoken goes on behind tokens.
    let times = Engine::of(&rig).context("the engine")?.prompts().await?;
    let begun = |prompt: String| times.get(&prompt).copied().unwrap_or(0);
    let spoken = (0..STREAMS).filter(|n| begun(format!("stream {n}")) != 1).count();
    run.count("streams begun more than once", spoken, 0..=0);
    let again = (0..queued).filter(|n| begun(format!("queued {n}")) > 1).count();
    let silent = if waiting as usize == queued { 0 } else { STREAMS };
    run.count(format!("queued tasks begun more than once, of {queued}"), again, 0..=silent);
    reached("the queue is empty", || async { Ok(house.api.counter("orchd_queue_depth").await? == 0.0) })
        .await?;
    Ok(())
}
