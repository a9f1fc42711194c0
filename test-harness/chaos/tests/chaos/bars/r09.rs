//! R9: a second manager on a directory that has one.

use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::house::{Manager, one_pool, until_published};
use crate::run::Run;

pub(super) async fn run(run: Arc<Run>) -> Result<()> {
    let rig = run.machine()?;
    rig.configure(&format!("pool_managerd: {{ listen: '127.0.0.1:0' }}\n{}", one_pool("", "")))?;
    let manager = Manager::start(&rig).await?;
    let engine = until_published(&rig).await?;
    let holder = manager.process.pid()?.to_string();
    for program in ["pool-managerd", "orchestratord"] {
        let mut command = rig.program(program)?;
        command.args(["--config", "config.yaml"]).stdin(Stdio::null());
        let began = Instant::now();
        let output = tokio::task::spawn_blocking(move || command.output());
        let output = output.await.context("waiting")?.with_context(|| format!("running {program}"))?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        run.count(format!("{program}: exit code"), output.status.code().unwrap_or(-1) as usize, 100..=100);
        run.time(format!("{program} ended"), began.elapsed(), Duration::from_secs(1));
        let line = said.lines().last().unwrap_or_default().to_owned();
        run.fact(format!("{program} names the first"), said.contains(&holder), line);
    }
    run.fact("the first one's engine serves on", rig.engines() == [engine], "");
    Ok(())
}
