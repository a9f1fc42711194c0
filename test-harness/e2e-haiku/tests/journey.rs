//! What a user does on the first day, on the real daemons and the real engine: the OpenAI door,
//! `run`, a cancel, an engine that dies, a stop.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use test_harness_e2e_haiku::{Api, Daemon, built_binary, provisioned};

const PROMPT: &str = "Write a haiku that includes the word rain";

/// ORCHD-OPENAI-001, ORCHD-MESSAGES-003, STREAM-007, ORCHD-RUN-001, ORCHD-CANCEL-001,
/// ORCHD-AUTOBIND-001, POOLD-LOSS-001, POOLD-RESTART-001, ORCHD-STOP-001, LCPP-013
#[tokio::test(flavor = "multi_thread")]
async fn the_first_day_of_a_user() -> Result<()> {
    provisioned()?;
    let daemon = Daemon::start()?;
    let api = Api::new(daemon.base())?;
    ensure!(daemon.banner.contains("haiku") && daemon.banner.contains("/v1"), "{}", daemon.banner);

    let whole = openai_answers_whole_and_streamed(&api).await?;
    tokens_are_counted_as_answers_count_them(&api).await?;
    run_uses_the_daemon_that_listens(&daemon, &whole)?;
    a_cancel_frees_the_slot(&api).await?;
    an_engine_that_dies_comes_back(&daemon, &api).await?;
    bad_requests_are_told_why(&api).await?;

    let log = daemon.log()?;
    ensure!(!log.contains(PROMPT), "a prompt reached the log");
    let took = daemon.stop()?;
    ensure!(took < Duration::from_secs(15), "the stop took {took:?}");
    Ok(())
}

async fn openai_answers_whole_and_streamed(api: &Api) -> Result<String> {
    let models = api.get("/v1/models").await?;
    ensure!(models["data"][0]["id"] == "haiku", "{models}");
    let mut body = json!({"model": "haiku", "temperature": 0, "max_tokens": 256,
        "messages": [{"role": "user", "content": PROMPT}]});
    let post = |body: Value| api.http().post(api.url("/v1/chat/completions")).json(&body).send();
    let answer: Value = post(body.clone()).await?.error_for_status()?.json().await?;
    let text = answer["choices"][0]["message"]["content"].as_str().context("no content")?.to_owned();
    ensure!(text.contains("rain"), "{text}");
    ensure!(answer["usage"]["completion_tokens"].as_u64() > Some(3), "{answer}");

    body["stream"] = json!(true);
    body["stream_options"] = json!({"include_usage": true});
    let streamed = post(body).await?.error_for_status()?.text().await?;
    ensure!(streamed.ends_with("data: [DONE]\n\n"), "{streamed}");
    ensure!(!streamed.contains("id: ") && !streamed.contains("event: "), "{streamed}");
    let chunks: Vec<Value> = streamed
        .split("\n\n")
        .filter_map(|frame| frame.strip_prefix("data: {").map(|rest| format!("{{{rest}")))
        .map(|data| serde_json::from_str(&data).context("a chunk is not JSON"))
        .collect::<Result<_>>()?;
    let joined: String =
        chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
    ensure!(joined == text, "streamed {joined:?}, whole {text:?}");
    ensure!(chunks.last().is_some_and(|last| last["usage"] == answer["usage"]), "{:?}", chunks.last());
    Ok(text)
}

async fn tokens_are_counted_as_answers_count_them(api: &Api) -> Result<()> {
    let conversation = json!({"model": "haiku", "system": "Be brief.", "messages": [
        {"role": "user", "content": PROMPT}, {"role": "assistant", "content": "Rain."},
        {"role": "user", "content": [{"type": "text", "text": "Again, with <|im_start|> \u{e4}\u{1f327}"}]}]});
    let post = |path: &str, body: &Value| api.http().post(api.url(path)).json(body).send();
    let counted = post("/v1/messages/count_tokens", &conversation).await?;
    let (status, counted): (_, Value) = (counted.status(), counted.json().await?);
    ensure!(status.is_success(), "{status}: {counted}");
    let mut message = conversation.clone();
    message["max_tokens"] = json!(1);
    let answer: Value = post("/v1/messages", &message).await?.error_for_status()?.json().await?;
    let (count, read) = (&counted["input_tokens"], &answer["usage"]["input_tokens"]);
    ensure!(count == read && count.as_u64() > Some(20), "counted {count}, the answer says {read}");
    Ok(())
}

fn run_uses_the_daemon_that_listens(daemon: &Daemon, expected: &str) -> Result<()> {
    let addr = daemon.base().strip_prefix("http://").context("the base URL is not http")?;
    let elsewhere = tempfile::tempdir()?;
    let output = Command::new(built_binary("orchestratord")?)
        .args(["run", PROMPT])
        .env("ORCHD_ADDR", addr)
        .env("ORCHD_RUNTIME_DIR", elsewhere.path().join("runtime"))
        .output()
        .context("running orchestratord run")?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{}: {err}", output.status);
    ensure!(out.trim() == expected.trim(), "run printed {out:?}, expected {expected:?}; {err}");
    ensure!(!elsewhere.path().join("runtime").exists(), "run started an orchestratord of its own");
    Ok(())
}

async fn a_cancel_frees_the_slot(api: &Api) -> Result<()> {
    // A completion that the model would go on with for long.
    let body = json!({"model": "haiku", "prompt": "a", "max_tokens": 2000, "temperature": 1.5, "seed": 1,
        "grammar": "root ::= [a-z ]{1999,2000}"});
    let answer: Value = api.http().post(api.url("/v2/tasks")).json(&body).send().await?.json().await?;
    let id = answer["task_id"].as_str().with_context(|| format!("no task: {answer}"))?;
    until("the task runs", async || Ok(api.get(&format!("/v2/tasks/{id}")).await?["state"] == "running"))
        .await?;
    api.http().post(api.url(&format!("/v2/tasks/{id}/cancel"))).send().await?.error_for_status()?;
    let followed = api.follow(&format!("/v2/tasks/{id}/events"), None).await?;
    ensure!(followed.end()?["finish_reason"] == "cancelled", "{:?}", followed.events.last());
    until("the slot is free", async || Ok(api.get("/v2/pools/haiku/health").await?["slots_free"] == 1)).await
}

async fn an_engine_that_dies_comes_back(daemon: &Daemon, api: &Api) -> Result<()> {
    let file = daemon.runtime().join("engines/haiku.r0.json");
    let handoff = || -> Result<Value> { Ok(serde_json::from_slice(&std::fs::read(&file)?)?) };
    let before = handoff()?;
    let pid = i32::try_from(before["pid"].as_i64().context("the handoff has no pid")?)?;
    kill(Pid::from_raw(pid), Signal::SIGKILL).context("killing the engine")?;
    until("a new life is published", async || {
        Ok(handoff().is_ok_and(|now| now["generation"].as_u64() > before["generation"].as_u64()))
    })
    .await?;
    // Submitted while orchestratord may still be probing the new life: it waits, and is answered.
    let admission = api.submit(PROMPT, json!({})).await?;
    let path = admission["streams"]["sse"].as_str().context("the 202 names no stream")?;
    let followed = api.follow(path, None).await?;
    followed.check_order()?;
    ensure!(followed.text().contains("rain"), "{}", followed.text());
    Ok(())
}

async fn bad_requests_are_told_why(api: &Api) -> Result<()> {
    for (body, status, code, param) in [
        (json!({"model": "haiku", "promt": "x"}), 400, "INVALID_PARAMS", "promt"),
        (json!({"model": "haiku", "prompt": "x", "max_tokens": 0}), 400, "INVALID_PARAMS", "max_tokens"),
        (json!({"model": "haikoo", "prompt": "x"}), 404, "MODEL_NOT_FOUND", "model"),
    ] {
        let answer = api.http().post(api.url("/v2/tasks")).json(&body).send().await?;
        ensure!(answer.status().as_u16() == status, "{body}: {}", answer.status());
        ensure!(answer.headers().contains_key("x-correlation-id"), "{body}: no correlation id");
        let error = answer.json::<Value>().await?["error"].take();
        ensure!(error["code"] == code && error["param"] == param, "{body}: {error}");
    }
    let unknown = api.http().get(api.url("/v2/tasks/unknown/events")).send().await?;
    ensure!(unknown.status().as_u16() == 404, "an unknown task streams: {}", unknown.status());
    Ok(())
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if holds().await? {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{what}: not within 20 s");
        tokio::task::yield_now().await;
    }
}
