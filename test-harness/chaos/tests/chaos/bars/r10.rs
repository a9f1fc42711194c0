//! R10: the manager is killed again and again while a stream runs; and its record is damaged.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use serde_json::json;
use test_harness_bdd::Rig;

use crate::house::{House, Manager, one_pool, published, recorded, until_published};
use crate::run::{Run, reached};

pub(super) async fn run(run: Arc<Run>) -> Result<()> {
    killed_in_a_stream(&run).await?;
    damaged_record(&run).await
}

/// A port that was free a moment ago: the manager must come back to where orchestratord looks for it.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("looking for a free port")?;
    Ok(listener.local_addr().context("its port")?.port())
}

async fn killed_in_a_stream(run: &Run) -> Result<()> {
    let rig = run.machine()?;
    let port = free_port()?;
    let daemons =
        format!("pool_managerd: {{ url: 'http://127.0.0.1:{port}', listen: '127.0.0.1:{port}' }}\n");
    rig.configure(&format!("{daemons}{}", one_pool("ctx: 65536", "STUB_TOKEN_MS: '20'")))?;
    let mut manager = Manager::start(&rig).await?;
    let engine = until_published(&rig).await?;
    let house = House::start_on(Arc::clone(&rig)).await?;
    house.is_ready().await?;
    let (kills, pause) = (run.pick(4, 20), Duration::from_millis(run.pick(500, 2_500)));
    let tokens = run.pick(400, 3_000);
    let task = house.submit(json!({"max_tokens": tokens, "on_interrupt": "fail"})).await?;
    let mut reader = house.follow(&task, None).await?;
    let stream = async {
        let mut seen = 0;
        loop {
            let event = reader.until(|_| true).await?;
            match event.name.as_str() {
                "token" if event.data["i"] == seen => seen += 1,
                "token" => anyhow::bail!("token {} came after {seen} others", event.data["i"]),
                "started" => {}
                _ => return Ok((event, seen)),
            }
        }
    };
    let kill = async {
        let mut slowest = Duration::ZERO;
        for _ in 0..kills {
            // When it is killed next.
            tokio::time::sleep(pause + Duration::from_millis(run.chance(400))).await;
            manager.process.signal(Signal::SIGKILL)?;
            manager.process.ended().await?;
            let began = Instant::now();
            manager = Manager::start(&rig).await?;
            let adopted = reached("the engine is adopted", || async {
                Ok(manager.replica().await?["phase"] == "ready")
            });
            slowest = slowest.max(adopted.await? - began);
        }
        anyhow::Ok(slowest)
    };
    let (stream, slowest) = tokio::join!(stream, kill);
    let (last, seen) = stream?;
    run.time(format!("adopted, slowest of {kills}"), slowest?, Duration::from_secs(2));
    run.fact("the stream ended with", last.name == "end", last.name.clone());
    run.count("tokens", seen as usize, tokens as usize..=tokens as usize);
    run.fact("same engine process", published(&rig) == Some(engine), "");
    run.count("engines", rig.engines().len(), 1..=1);
    Ok(())
}

/// The record deleted, and cut at some byte: the next manager never runs two engines.
async fn damaged_record(run: &Run) -> Result<()> {
    let rig = run.machine()?;
    rig.configure(&format!("pool_managerd: {{ listen: '127.0.0.1:0' }}\n{}", one_pool("", "")))?;
    let rounds = run.pick(3, 20);
    let mut most = 0;
    for round in 0..rounds {
        let mut manager = Manager::start(&rig).await?;
        let before = until_settled(&manager, &rig, &mut most).await?;
        manager.process.signal(Signal::SIGKILL)?;
        manager.process.ended().await?;
        let record = rig.path("runtime/run/p.r0.pid");
        let bytes = std::fs::read(&record).context("reading the record")?;
        if round == 0 {
            std::fs::remove_file(&record).context("deleting the record")?;
        } else {
            let at = run.chance(bytes.len() as u64) as usize;
            std::fs::write(&record, &bytes[..at]).context("cutting the record")?;
        }
        let manager = Manager::start(&rig).await?;
        let after = until_settled(&manager, &rig, &mut most).await?;
        anyhow::ensure!(before != after || round > 0, "an engine without a record was adopted");
    }
    run.count(format!("engines at once over {rounds} damaged records"), most, 1..=1);
    Ok(())
}

/// Until the replica is ready; counts the engines that serve meanwhile.
async fn until_settled(manager: &Manager, rig: &Rig, most: &mut usize) -> Result<i32> {
    reached("the replica is ready", || {
        *most = (*most).max(rig.engines().len());
        async { Ok(manager.replica().await?["phase"] == "ready" && recorded(rig) == published(rig)) }
    })
    .await?;
    *most = (*most).max(rig.engines().len());
    published(rig).context("no engine is published")
}
