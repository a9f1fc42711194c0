//! R6: engines that do not go when they are asked, leave children, and crash again and again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use crate::house::{Manager, one_pool, published, signal, until_published};
use crate::processes::{self, lives};
use crate::run::{Run, reached};

/// How long an engine is given to end by itself.
const GRACE: Duration = Duration::from_secs(5);

pub(super) async fn run(run: Arc<Run>) -> Result<()> {
    let (stopped, crashed) = tokio::join!(stops(&run), crashes(&run));
    stopped.and(crashed)
}

fn config(switches: &str) -> String {
    format!("pool_managerd: {{ listen: '127.0.0.1:0' }}\n{}", one_pool("", switches))
}

async fn stops(run: &Run) -> Result<()> {
    let rig = run.machine()?;
    rig.configure(&config("STUB_IGNORE_TERM: '1', STUB_GRANDCHILD: '1'"))?;
    let manager = Manager::start(&rig).await?;
    let engine = until_published(&rig).await?;
    run.count("processes of an engine with a grandchild", rig.engines().len(), 2..=2);
    let asked = Instant::now();
    manager.post("/v2/pools/p/stop").await?;
    let gone = reached("the engine is gone", || async { Ok(!lives(engine)) }).await?;
    run.time("gone though it ignores TERM", gone - asked, GRACE + Duration::from_millis(500));
    reached("the pool is stopped", || async { Ok(manager.replica().await?["phase"] == "stopped") }).await?;
    run.count("descendants", rig.engines().len(), 0..=0);
    Ok(())
}

async fn crashes(run: &Run) -> Result<()> {
    let rig = run.machine()?;
    rig.configure(&config("STUB_GRANDCHILD: '1'"))?;
    let manager = Manager::start(&rig).await?;
    let pid = manager.process.pid()?.as_raw();
    let crashes = run.pick(40, 1_000);
    let mut before = None;
    for crash in 0..crashes {
        let engine = until_published(&rig).await?;
        if crash == 5 {
            // Everything that is opened once has been opened.
            before = Some(processes::descriptors(pid));
        }
        signal(engine, Signal::SIGKILL).with_context(|| format!("crash {crash}"))?;
        // The first loss is restarted at once; a reset makes the next one the first again.
        reached("another life", || async { Ok(published(&rig).is_some_and(|pid| pid != engine)) }).await?;
        let reset = manager.post("/v2/pools/p/reset").await?;
        let path = format!("/v2/operations/{}", reset["operation_id"].as_str().unwrap_or_default());
        reached("reset", || async { Ok(manager.get(&path).await?["state"] == "succeeded") }).await?;
    }
    let engine = until_published(&rig).await?;
    run.count(format!("zombies after {crashes} crashes"), processes::zombies_of(pid), 0..=0);
    run.count("processes of engines", rig.engines().len(), 2..=2);
    let (before, after) = (before.unwrap_or(0), processes::descriptors(pid));
    run.count("descriptors", after, before.saturating_sub(10)..=before + 10);
    run.fact("the last life serves", lives(engine), "");
    Ok(())
}
