//! R18: a reload to an engine or a model that is no good.

use std::convert::Infallible;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use test_harness_bdd::Rig;
use test_harness_e2e_haiku::built_binary;

use crate::house::House;
use crate::run::{Run, reached};

/// Longer than anything here takes on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(120);

/// What is wrong with what is reloaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Exits,
    NeverHealthy,
    Checksum,
}

pub(super) async fn run(run: Arc<Run>) -> Result<()> {
    let (one, two, three, four) = tokio::join!(
        reload(&run, Fault::Exits),
        reload(&run, Fault::NeverHealthy),
        reload(&run, Fault::Checksum),
        without_room(&run)
    );
    one.and(two).and(three).and(four)
}

/// There is no memory for two engines: the old one ends before the new one is tried, and must come back.
async fn without_room(run: &Run) -> Result<()> {
    let rig = run.machine()?;
    let stub = built_binary("stub-llama")?;
    let script = format!(
        "#!/bin/sh\ncase \"$1\" in --version|--help) exec '{stub}' \"$1\";; esac\n\
         echo 'this engine does not start' >&2; exit 3\n",
        stub = stub.display()
    );
    replace(&rig, "bad", script.as_bytes(), 0o755)?;
    // A context that no machine has the memory for twice, or once; the fake engine reserves none.
    let with = |binary: &str| {
        format!(
            "pools: [{{ id: p, model: '$MODEL', ctx: 15000000, slots: 256, allow_oversubscribe: true, \
             env: {{ STUB_TOKEN_MS: '20' }}, \
             provisioning: {{ gpu: off, sources: [{{ path: {{ binary: '{binary}' }} }}] }} }}]\n"
        )
    };
    rig.configure(&with(&stub.display().to_string()))?;
    let house = House::start_on(Arc::clone(&rig)).await?;
    house.is_ready().await?;
    let before = house.engine()?;
    let task = house.submit(json!({"max_tokens": 50, "on_interrupt": "fail"})).await?;
    let mut reader = house.follow(&task, None).await?;
    reader.until(|event| event.name == "token").await?;
    let running =
        tokio::spawn(async move { reader.until(|event| event.name == "end" || event.name == "error").await });

    rig.configure(&with("$DIR/bad"))?;
    house.orchestratord.signal(Signal::SIGHUP)?;
    let (mut side_by_side, mut longest, mut published) = (0, Duration::ZERO, Instant::now());
    let began = Instant::now();
    let operation = loop {
        side_by_side = side_by_side.max(rig.engines().len());
        match house.engine() {
            Ok(_) => published = Instant::now(),
            Err(_) => longest = longest.max(published.elapsed()),
        }
        let operations = house.api.get("/v2/operations").await?;
        let ended = |operation: &&Value| operation["kind"] == "configure" && operation["state"] != "running";
        if let Some(operation) = operations["operations"].as_array().into_iter().flatten().find(ended) {
            break operation.clone();
        }
        ensure!(began.elapsed() < PATIENCE, "the changed configuration is never followed: {operations}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let what = "no room for both";
    run.count(format!("{what}: engines at a time"), side_by_side, 1..=1);
    run.time(format!("{what}: no engine for at most"), longest, Duration::from_secs(2));
    run.fact(
        format!("{what}: operation"),
        operation["state"] == "rolled_back",
        operation["state"].to_string(),
    );
    let error = &operation["outcome"]["error"];
    run.fact(format!("{what}: cause kept"), error["cause"] == "exit", error["cause"].to_string());
    let end = running.await.context("the reader")??;
    run.fact(format!("{what}: what ran has"), end.name == "end", end.name);
    let next = house.submit(json!({})).await?;
    reached("the next task is done", || async {
        Ok(house.api.get(&format!("/v2/tasks/{next}")).await?["state"] == "done")
    })
    .await?;
    run.fact(format!("{what}: by another process"), house.engine()? != before, "");
    Ok(())
}

async fn reload(run: &Run, fault: Fault) -> Result<()> {
    let rig = run.machine()?;
    std::fs::copy(built_binary("stub-llama")?, rig.path("engine")).context("copying the engine")?;
    let digest = sha256(&rig)?;
    rig.configure(&format!(
        "pools: [{{ id: p, model: '$MODEL', model_sha256: {digest}, env: {{ STUB_TOKEN_MS: '20' }}, \
         provisioning: {{ gpu: off, sources: [{{ path: {{ binary: '$DIR/engine' }} }}] }} }}]\n"
    ))?;
    let house = House::start_on(Arc::clone(&rig)).await?;
    house.is_ready().await?;
    let before = house.engine()?;
    // Something runs when the reload comes, and must come to its end.
    let task = house.submit(json!({"max_tokens": 100, "on_interrupt": "fail"})).await?;
    let mut reader = house.follow(&task, None).await?;
    reader.until(|event| event.name == "token").await?;
    let running =
        tokio::spawn(async move { reader.until(|event| event.name == "end" || event.name == "error").await });
    spoil(&rig, fault)?;

    let longest = Mutex::new(Duration::ZERO);
    let operation = tokio::select! {
        operation = house.operate("reload", json!({})) => operation?,
        never = longest_gap(&house, &longest) => match never {},
    };
    let name = match fault {
        Fault::Exits => "exits",
        Fault::NeverHealthy => "never healthy",
        Fault::Checksum => "checksum",
    };
    let longest = longest.into_inner().unwrap_or_else(PoisonError::into_inner);
    run.time(format!("{name}: not ready for at most"), longest, Duration::from_secs(2));
    run.fact(
        format!("{name}: operation"),
        operation["state"] == "rolled_back",
        operation["state"].to_string(),
    );
    let error = &operation["outcome"]["error"];
    run.fact(format!("{name}: cause kept"), error["cause"].is_string(), error["cause"].to_string());
    let end = running.await.context("the reader")??;
    run.fact(format!("{name}: what ran has"), end.name == "end", end.name);
    let ended = Instant::now();
    let next = house.submit(json!({})).await?;
    reached("the next task is done", || async {
        Ok(house.api.get(&format!("/v2/tasks/{next}")).await?["state"] == "done")
    })
    .await?;
    run.time(format!("{name}: serving again"), ended.elapsed(), Duration::from_secs(2));
    run.fact(format!("{name}: by the old engine"), house.engine()? == before, "");
    Ok(())
}

/// The longest time in which the pool was not ready.
async fn longest_gap(house: &House, longest: &Mutex<Duration>) -> Infallible {
    let mut last_ready = Instant::now();
    loop {
        let ready = house.health().await.is_ok_and(|health| health["ready"] == true);
        if ready {
            last_ready = Instant::now();
        } else {
            let mut longest = longest.lock().unwrap_or_else(PoisonError::into_inner);
            *longest = longest.max(last_ready.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn spoil(rig: &Rig, fault: Fault) -> Result<()> {
    if fault == Fault::Checksum {
        let model = rig.path("model.gguf");
        let mut bytes = std::fs::read(&model).context("reading the model")?;
        if let Some(last) = bytes.last_mut() {
            *last ^= 1;
        }
        return replace(rig, "model.gguf", &bytes, 0o600);
    }
    let stub = built_binary("stub-llama")?;
    // It says its version and its flags as a good one does: what is wrong shows only when it serves.
    let script = format!(
        "#!/bin/sh\ncase \"$1\" in --version|--help) exec '{stub}' \"$1\";; esac\n{}\n",
        match fault {
            Fault::NeverHealthy => format!("exec '{}' \"$@\" --stub-no-bind", stub.display()),
            _ => "echo 'this engine does not start' >&2; exit 3".to_owned(),
        },
        stub = stub.display()
    );
    replace(rig, "engine", script.as_bytes(), 0o755)
}

/// Another file under the same name; the one that runs or is read stays what it is.
fn replace(rig: &Rig, name: &str, bytes: &[u8], mode: u32) -> Result<()> {
    let part = rig.path(&format!("{name}.part"));
    std::fs::write(&part, bytes).context("writing the replacement")?;
    std::fs::set_permissions(&part, std::fs::Permissions::from_mode(mode)).context("its mode")?;
    std::fs::rename(part, rig.path(name)).context("putting it in its place")
}

fn sha256(rig: &Rig) -> Result<String> {
    let bytes = std::fs::read(rig.path("model.gguf")).context("reading the model")?;
    Ok(Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect())
}
