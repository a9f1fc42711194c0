//! Engines: started, killed, adopted, and what is published about them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cucumber::gherkin::Step;
use cucumber::{given, then, when};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use test_harness_bdd::{listening, lives, until, until_within};
use test_harness_e2e_haiku::Client;

use crate::world::Lab;

#[given(expr = "pool {string} is ready")]
#[then(expr = "pool {string} becomes ready")]
async fn ready(lab: &mut Lab, pool: String) -> Result<()> {
    pool_is(lab, pool, true).await
}

#[then(expr = "pool {string} is no longer ready")]
async fn not_ready(lab: &mut Lab, pool: String) -> Result<()> {
    pool_is(lab, pool, false).await
}

async fn pool_is(lab: &Lab, pool: String, ready: bool) -> Result<()> {
    let (api, path) = (lab.api()?.clone(), format!("/v2/pools/{pool}/health"));
    until(&format!("{pool} has ready = {ready}"), || async { Ok(api.get(&path).await?["ready"] == ready) })
        .await?;
    Ok(())
}

#[given(expr = "the engine of {string} is published")]
#[then(expr = "the engine of {string} is published")]
async fn published(lab: &mut Lab, pool: String) -> Result<()> {
    until("a handoff appears", || async { Ok(lab.rig.handoff(&pool, "r0").is_some()) }).await?;
    let handoff = lab.handoff(&pool)?;
    lab.noted.insert("pid".to_owned(), handoff["pid"].as_f64().context("no pid")?);
    lab.noted.insert("generation".to_owned(), handoff["generation"].as_f64().context("no generation")?);
    Ok(())
}

#[then(expr = "pool-managerd adopts the engine of {string} with its process and generation")]
async fn adopted(lab: &mut Lab, pool: String) -> Result<()> {
    let manager = lab.manager.as_ref().context("pool-managerd does not run")?;
    until("it says that it adopted", || async { Ok(manager.said().contains("adopted an engine")) }).await?;
    let handoff = lab.handoff(&pool)?;
    ensure!(handoff["pid"].as_f64() == lab.noted.get("pid").copied(), "{handoff:#}");
    ensure!(handoff["generation"].as_f64() == lab.noted.get("generation").copied(), "{handoff:#}");
    Ok(())
}

#[when(expr = "the engine of {string} is killed")]
async fn kill_engine(lab: &mut Lab, pool: String) -> Result<()> {
    published(lab, pool.clone()).await?;
    let pid = lab.pid(&pool)?;
    kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGKILL).context("killing the engine")
}

/// Each life once, as soon as it is published.
#[when(expr = "every engine of {string} is killed until its breaker opens")]
async fn kill_all(lab: &mut Lab, pool: String) -> Result<()> {
    let (api, path) = (lab.api()?.clone(), format!("/v2/pools/{pool}"));
    let mut killed = std::collections::BTreeSet::new();
    until_within("the breaker opens", Duration::from_secs(180), Duration::from_millis(20), || {
        let next = lab.rig.handoff(&pool, "r0").and_then(|handoff| handoff["pid"].as_i64());
        let sent = next.filter(|pid| killed.insert(*pid)).map(|pid| {
            let pid = i32::try_from(pid).context("a pid")?;
            kill(Pid::from_raw(pid), Signal::SIGKILL).context("killing the engine")
        });
        let view = api.get(&path);
        async move {
            sent.transpose()?;
            Ok(view.await?["replicas"][0]["phase"] == "breaker_open")
        }
    })
    .await?;
    Ok(())
}

/// One that was not published yet.
#[when(expr = "the starting engine of {string} is killed")]
async fn kill_starting(lab: &mut Lab, pool: String) -> Result<()> {
    let view = lab.api()?.get(&format!("/v2/pools/{pool}")).await?;
    let pid = view["replicas"][0]["pid"].as_i64().with_context(|| format!("no process: {view:#}"))?;
    kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGKILL).context("killing the engine")
}

#[then(expr = "the engine of {string} is replaced while the old one still runs")]
async fn replaced(lab: &mut Lab, pool: String) -> Result<()> {
    let before = *lab.noted.get("generation").context("no generation was noted")?;
    ensure!(lab.handoff(&pool)?["generation"].as_f64() > Some(before), "{:#}", lab.handoff(&pool)?);
    ensure!(lives(*lab.noted.get("pid").context("no pid")? as u64), "the old process is gone");
    Ok(())
}

#[then(expr = "the engine of {string} comes back as a new generation")]
async fn comes_back(lab: &mut Lab, pool: String) -> Result<()> {
    let before = *lab.noted.get("generation").context("no generation was noted")?;
    until("a later generation is published", || async {
        Ok(lab.handoff(&pool)?["generation"].as_f64() > Some(before))
    })
    .await?;
    let pid = *lab.noted.get("pid").context("no pid")? as u64;
    until("the old process is gone", || async { Ok(!lives(pid)) }).await?;
    Ok(())
}

#[then(expr = "pool {string} says why: cause {string} and {string} in the log lines")]
async fn says_why(lab: &mut Lab, pool: String, cause: String, line: String) -> Result<()> {
    let (api, path) = (lab.api()?.clone(), format!("/v2/pools/{pool}"));
    until("the cause is shown", || async {
        let view = api.get(&path).await?;
        let error = &view["replicas"][0]["last_error"];
        anyhow::ensure!(error["cause"] == cause && error.to_string().contains(&line), "{view:#}");
        Ok(true)
    })
    .await?;
    Ok(())
}

#[then(expr = "replica {word} of pool {string} reaches phase {string}")]
async fn reaches(lab: &mut Lab, replica: String, pool: String, phase: String) -> Result<()> {
    let (api, path) = (lab.api()?.clone(), format!("/v2/pools/{pool}"));
    until("the phase is reached", || async {
        let view = api.get(&path).await?;
        let replicas = view["replicas"].as_array().context("no replicas")?;
        Ok(replicas.iter().any(|r| r["id"] == replica && r["phase"] == phase))
    })
    .await?;
    Ok(())
}

#[given(expr = "an engine {string} that somebody else runs")]
async fn foreign(lab: &mut Lab, name: String) -> Result<()> {
    let engine = lab.rig.start_stub(&name).await?;
    lab.engines.insert(name, engine);
    Ok(())
}

#[when(expr = "the handoff {string} says")]
fn handoff(lab: &mut Lab, name: String, step: &Step) -> Result<()> {
    let mut text = step.docstring.clone().context("a handoff is a doc string")?;
    for (engine, (_, url)) in &lab.engines {
        text = text.replace(&format!("${engine}"), url);
    }
    lab.rig.publish(&name, &text)
}

#[when(expr = "the handoff of {string} is published again as pool {string}")]
fn publish_again(lab: &mut Lab, pool: String, other: String) -> Result<()> {
    let mut handoff = lab.handoff(&pool)?;
    handoff["pool_id"] = other.clone().into();
    lab.rig.publish(&format!("{other}.json"), &handoff.to_string())
}

#[given(expr = "the next life of the fake engine has {string}")]
#[when(expr = "the next life of the fake engine has {string}")]
fn next_life(lab: &mut Lab, switches: String) -> Result<()> {
    lab.rig.next_life(&switches.replace(", ", "\n"))
}

#[when(expr = "the engine {string} ends")]
async fn foreign_ends(lab: &mut Lab, name: String) -> Result<()> {
    lab.engines.remove(&name).with_context(|| format!("no engine {name} runs"))?.0.dismiss().await
}

#[when(expr = "the engine of {string} is stopped by a signal")]
async fn suspend_engine(lab: &mut Lab, pool: String) -> Result<()> {
    published(lab, pool.clone()).await?;
    let pid = lab.pid(&pool)?;
    kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGSTOP).context("stopping the engine")
}

#[then(expr = "the engine of {string} is still the same process")]
async fn same_process(lab: &mut Lab, pool: String) -> Result<()> {
    let before = *lab.noted.get("pid").context("no pid was noted")? as u64;
    let pid = lab.pid(&pool)?;
    ensure!(pid == before && lives(pid), "it is {pid}, and was {before}");
    Ok(())
}

#[then(expr = "the engine of {string} sees only card {string}")]
async fn sees_card(lab: &mut Lab, pool: String, card: String) -> Result<()> {
    published(lab, pool.clone()).await?;
    ensure!(lab.handoff(&pool)?["device_mask"] == card, "{:#}", lab.handoff(&pool)?);
    let environment = std::fs::read(format!("/proc/{}/environ", lab.pid(&pool)?))?;
    let environment = String::from_utf8_lossy(&environment).into_owned();
    let expected = format!("CUDA_VISIBLE_DEVICES={card}");
    ensure!(environment.split('\0').any(|variable| variable == expected), "{environment}");
    Ok(())
}

#[then(expr = "the engine of {string} is given no card")]
async fn given_no_card(lab: &mut Lab, pool: String) -> Result<()> {
    published(lab, pool.clone()).await?;
    let handoff = lab.handoff(&pool)?;
    ensure!(handoff["device_mask"].is_null(), "{handoff:#}");
    let environment = std::fs::read(format!("/proc/{}/environ", lab.pid(&pool)?))?;
    let environment = String::from_utf8_lossy(&environment).into_owned();
    ensure!(!environment.is_empty() && !environment.contains("CUDA_VISIBLE_DEVICES"), "{environment}");
    Ok(())
}

/// By its slots, before it is published: nothing tells its key then but the file that it was started with.
#[then(expr = "the starting engine of {string} is asked for its first token")]
async fn asked_first(lab: &mut Lab, pool: String) -> Result<()> {
    let (api, path) = (lab.api()?.clone(), format!("/v2/pools/{pool}"));
    until("the engine is asked for its first token", || async {
        let view = api.get(&path).await?;
        let url = view["replicas"][0]["url"].as_str().context("it has no address yet")?;
        let key = lab.rig.engine_key(&pool)?;
        let slots = api.http().unchecked().get(format!("{url}/slots")).bearer_auth(key).send().await?;
        let slots: serde_json::Value = slots.json().await.context("reading its slots")?;
        ensure!(slots[0]["is_processing"] == true, "{slots:#}");
        Ok(true)
    })
    .await?;
    Ok(())
}

#[then(expr = "no handoff of {string} is there")]
fn no_handoff(lab: &mut Lab, pool: String) -> Result<()> {
    ensure!(lab.rig.handoff(&pool, "r0").is_none(), "{:#}", lab.handoff(&pool)?);
    Ok(())
}

/// As the kernel tells it of the process itself: it gains no privileges, and its system calls are filtered.
#[then(expr = "the engine of {string} is confined by the kernel")]
async fn confined(lab: &mut Lab, pool: String) -> Result<()> {
    published(lab, pool.clone()).await?;
    let status = std::fs::read_to_string(format!("/proc/{}/status", lab.pid(&pool)?))?;
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2"] {
        ensure!(status.lines().any(|found| found == line), "not {line:?} in\n{status}");
    }
    Ok(())
}

#[then(expr = "asking pool-managerd for {word} without its token is answered {int}")]
async fn tokenless(lab: &mut Lab, path: String, status: u16) -> Result<()> {
    let manager = lab.manager.as_ref().context("pool-managerd does not run")?;
    let mut address = None;
    until("pool-managerd listens", || {
        address = listening(&manager.said(), "pool-managerd");
        let found = address.is_some();
        async move { Ok(found) }
    })
    .await?;
    let url = format!("http://{}{path}", address.unwrap_or_default());
    let answer = Client::pool_managerd().get(url).send().await.context("asking pool-managerd")?;
    ensure!(answer.status() == status, "it is answered {}", answer.status());
    Ok(())
}

#[then(expr = "{string} has mode {word}")]
fn has_mode(lab: &mut Lab, name: String, mode: String) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let found = std::fs::metadata(lab.rig.path(&name)).context("reading its mode")?.permissions().mode();
    ensure!(format!("{:o}", found & 0o777) == mode, "it is {found:o}");
    Ok(())
}

#[then(expr = "asking the engine of {string} directly without its key is answered {int}")]
async fn keyless(lab: &mut Lab, pool: String, status: u16) -> Result<()> {
    let url = lab.handoff(&pool)?["url"].as_str().context("no url")?.to_owned();
    let body = serde_json::json!({"prompt": "x", "n_predict": 1});
    let http = lab.api()?.http().unchecked();
    let answer = http.post(format!("{url}/completion")).json(&body).send().await.context("asking")?;
    ensure!(answer.status() == status, "it is answered {}", answer.status());
    Ok(())
}

#[when(expr = "the handoff {string} is removed")]
fn remove_handoff(lab: &mut Lab, name: String) -> Result<()> {
    std::fs::remove_file(lab.rig.handoffs().join(name)).context("removing a handoff")
}

#[then(expr = "the engine of {string} is gone and its handoff, too")]
async fn gone(lab: &mut Lab, pool: String) -> Result<()> {
    let pid = *lab.noted.get("pid").context("no pid was noted")? as u64;
    until("the engine is gone", || async { Ok(!lives(pid)) }).await?;
    ensure!(lab.rig.handoff(&pool, "r0").is_none(), "the handoff is still there");
    Ok(())
}
