//! R8: very many handoffs at once, and a directory that is deleted and made anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::json;
use test_harness_e2e_haiku::Reader;

use crate::house::{House, percentile};
use crate::run::{Run, reached};

/// How long a stream is listened to before anything happens.
const QUIET: Duration = Duration::from_secs(4);

pub(super) async fn run(run: Arc<Run>) -> Result<()> {
    let house = House::ready(&run, "ctx: 100000", "STUB_TOKEN_MS: '20'").await?;
    let (_engine, url) = house.rig.start_stub("many").await?;
    let task = house.submit(json!({"max_tokens": 50_000})).await?;
    let mut reader = house.follow(&task, None).await?;
    let calm = AtomicBool::new(false);
    let (quiet, _) = tokio::join!(gaps(&mut reader, &calm), async {
        // How long the undisturbed stream is listened to.
        tokio::time::sleep(QUIET).await;
        calm.store(true, Ordering::SeqCst);
    });
    let quiet = percentile(&mut quiet?, 99);

    let many = run.pick(200, 1_000);
    let over = AtomicBool::new(false);
    let flood = async {
        // As long as the quiet time was, so that the two compare.
        let (bound, ()) = tokio::join!(flood(&house, &url, many), tokio::time::sleep(QUIET));
        over.store(true, Ordering::SeqCst);
        bound
    };
    let (gaps, bound) = tokio::join!(gaps(&mut reader, &over), flood);
    run.time(format!("{many} at once, all bound"), bound?, Duration::from_secs(5));
    run.time("another stream's p99 gap", percentile(&mut gaps?, 99), quiet * 2);
    drop(reader);
    // The claims of the flood go, and many more files come that all claim one replica.
    for n in 0..many {
        std::fs::remove_file(house.rig.handoffs().join(format!("many-{n}.json"))).context("withdrawing")?;
    }
    let files = run.pick(2_000, 10_000);
    for n in 0..files {
        house
            .rig
            .publish(&format!("same-{n}.json"), &format!("{{\"url\": \"{url}\", \"pool_id\": \"same\"}}"))?;
    }
    is_ready(&house, "same").await?;
    settled(&house).await?;
    let mut slowest = Duration::ZERO;
    for n in 0..3 {
        let pool = format!("beside-{n}");
        let published = Instant::now();
        house
            .rig
            .publish(&format!("{pool}.json"), &format!("{{\"url\": \"{url}\", \"pool_id\": \"{pool}\"}}"))?;
        slowest = slowest.max(is_ready(&house, &pool).await? - published);
    }
    // A scan may have begun just before the file came; the next one finds it.
    run.time(format!("scan of {files}: found and bound"), slowest, 2 * Duration::from_millis(500));

    let dir = house.rig.handoffs();
    std::fs::remove_dir_all(&dir).context("deleting the directory")?;
    reached("its claims are gone", || async {
        Ok(house.api.get("/v2/pools/same/health").await?["ready"] == false)
    })
    .await?;
    std::fs::create_dir(&dir).context("making it anew")?;
    let published = Instant::now();
    house.rig.publish("anew.json", &format!("{{\"url\": \"{url}\", \"pool_id\": \"anew\"}}"))?;
    let bound = is_ready(&house, "anew").await?;
    run.time("bound in a directory made anew", bound - published, Duration::from_secs(5));
    Ok(())
}

/// Publishes so many claims to one engine, and says how long it takes until all are bound.
async fn flood(house: &House, url: &str, many: usize) -> Result<Duration> {
    let before = house.api.counter("orchd_slots_total").await?;
    let began = Instant::now();
    let (rig, url) = (Arc::clone(&house.rig), url.to_owned());
    let publish = move || {
        (0..many).try_for_each(|n| {
            let claim = format!("{{\"url\": \"{url}\", \"pool_id\": \"many\", \"replica_id\": \"r{n}\"}}");
            rig.publish(&format!("many-{n}.json"), &claim)
        })
    };
    tokio::task::spawn_blocking(publish).await.context("publishing")??;
    let all = before + many as f64;
    let bound = reached("all are bound", || async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        Ok(house.api.counter("orchd_slots_total").await? >= all)
    });
    Ok(bound.await? - began)
}

async fn is_ready(house: &House, pool: &str) -> Result<Instant> {
    let path = format!("/v2/pools/{pool}/health");
    reached(&format!("{pool} is bound"), || async { Ok(house.api.get(&path).await?["ready"] == true) }).await
}

/// No scan has been made for a second.
async fn settled(house: &House) -> Result<()> {
    reached("the scans settle", || async {
        let before = house.api.counter("orchd_handoff_rescans_total").await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(house.api.counter("orchd_handoff_rescans_total").await? - before < 2.0)
    })
    .await?;
    Ok(())
}

/// Times between tokens, until told.
async fn gaps(reader: &mut Reader, over: &AtomicBool) -> Result<Vec<Duration>> {
    let (mut gaps, mut last) = (Vec::new(), None);
    while !over.load(Ordering::SeqCst) {
        let event = reader.until(|event| event.name != "started").await?;
        anyhow::ensure!(event.name == "token", "the stream ended with {event:?}");
        let now = Instant::now();
        gaps.extend(last.map(|last| now - last));
        last = Some(now);
    }
    Ok(gaps)
}
