//! The main journey: a config in, tokens of a real engine out, and what the system says about them
//! is true.

use anyhow::{Context, Result, ensure};
use proof_bundle::{Kind, ProofBundle};
use serde_json::json;
use test_harness_e2e_haiku::{Api, Daemon, Followed, current_minute, provisioned, spelled};

/// ORCHD-ADMIT-001, STREAM-001, STREAM-002, ORCHD-METRICS-001, SEC-004, OV-004, EPROV-006
#[tokio::test(flavor = "multi_thread")]
async fn a_haiku_about_this_minute_comes_from_the_engine_that_was_provisioned() -> Result<()> {
    let prepared = provisioned()?;
    ensure!(prepared.binary_path.is_file(), "no engine at {}", prepared.binary_path.display());
    let daemon = Daemon::start()?;
    let api = Api::new(daemon.base())?;
    let words = spelled(current_minute());
    let prompt = format!("Write a haiku that includes the words {words}");

    let before = api.metrics().await?;
    let counted_before = api.counter("orchd_tokens_out_total").await?;
    let admission = api.submit(&prompt, json!({})).await?;
    ensure!(admission["preparation"]["steps"] == json!([]), "a ready pool has no steps: {admission}");
    let path = admission["streams"]["sse"].as_str().context("the 202 names no stream")?.to_owned();
    let first = api.follow(&path, None).await?;
    first.check_order()?;
    let counted = api.counter("orchd_tokens_out_total").await? - counted_before;
    let after = api.metrics().await?;

    let text = first.text();
    let plain = text.to_lowercase().replace('-', " ");
    ensure!(plain.contains(&words), "the haiku does not hold {words:?}:\n{text}");
    ensure!(text.trim().lines().count() == 3, "not three lines:\n{text}");
    let end = first.end()?;
    ensure!(end["tokens_out"].as_f64() == Some(counted), "the counter rose by {counted}, the end says {end}");
    let version = &first.events[0].data["engine_version"];
    ensure!(
        *version == json!(prepared.engine_version),
        "ran {version}, provisioned {}",
        prepared.engine_version
    );

    resumes_exactly(&api, &path, &first).await?;
    repeats_exactly(&api, &prompt, &first).await?;

    let log = daemon.log()?;
    let engine_log = daemon.engine_logs()?;
    ensure!(!log.contains(&prompt) && !engine_log.contains(&prompt), "a prompt reached a log");
    write_proof(&words, &admission, &first, &before, &after, &log)?;
    daemon.stop()?;
    Ok(())
}

async fn resumes_exactly(api: &Api, path: &str, whole: &Followed) -> Result<()> {
    let cut = whole.events.len() / 2;
    let id = whole.events[cut].id.as_deref().context("an event of the log has no id")?;
    let rest = api.follow(path, Some(id)).await?;
    ensure!(rest.events == whole.events[cut + 1..], "Last-Event-ID {id} did not continue exactly");
    Ok(())
}

async fn repeats_exactly(api: &Api, prompt: &str, first: &Followed) -> Result<()> {
    let admission = api.submit(prompt, json!({})).await?;
    let path = admission["streams"]["sse"].as_str().context("the 202 names no stream")?;
    let second = api.follow(path, None).await?;
    let tokens = |followed: &Followed| followed.named("token").map(|e| e.data.clone()).collect::<Vec<_>>();
    ensure!(tokens(first) == tokens(&second), "{:?} is not {:?}", second.text(), first.text());
    let digest = |followed: &Followed| anyhow::Ok(followed.end()?["receipt"]["tokens_sha256"].clone());
    ensure!(digest(first)? == digest(&second)?, "the receipts differ");
    Ok(())
}

fn write_proof(
    words: &str,
    admission: &serde_json::Value,
    followed: &Followed,
    before: &str,
    after: &str,
    log: &str,
) -> Result<()> {
    let mut bundle = ProofBundle::create(env!("CARGO_MANIFEST_DIR"), Kind::E2e, None)?;
    bundle.write("admission.json", admission.to_string().as_bytes())?;
    bundle.fact("seed", &followed.end()?["receipt"]["seed"])?;
    for event in &followed.events {
        bundle.append_event(&json!({"id": event.id, "event": event.name, "data": event.data}))?;
    }
    bundle.write("metrics-before.txt", before.as_bytes())?;
    bundle.write("metrics-after.txt", after.as_bytes())?;
    bundle.write("orchestratord.log", log.as_bytes())?;
    let text = followed.text();
    bundle.finish(&format!("# A haiku that holds \"{words}\"\n\n```\n{}\n```\n", text.trim_end()))?;
    Ok(())
}
