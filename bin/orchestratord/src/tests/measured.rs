//! What was measured, over restarts.

use super::*;

/// What a task is told that waits behind one that runs.
async fn told(settings: &Settings, stub: &RunningStub, life: u64) -> Value {
    // Before the start: the one of the life before would be bound first, and two lives have a slot more.
    let handoffs = HandoffDir::open(settings.config.paths.runtime.join("engines")).unwrap();
    let handoff = json!({"url": stub.url(), "pool_id": "p", "generation": life, "slots_total": 1});
    handoffs.publish(&serde_json::from_value(handoff).unwrap()).unwrap();
    let running = app::start(settings, settings.config.api.listen).await.unwrap();
    let base = format!("http://{}", running.addr());
    let http = Client::orchestratord();
    let get = async |path: &str| -> Value {
        http.get(format!("{base}{path}")).send().await.unwrap().json().await.unwrap()
    };
    until(async || get("/v2/pools/p/health").await["ready"] == true).await;
    let submit = async |max_tokens: u32| -> Value {
        let body = json!({"model": "p", "prompt": "x", "max_tokens": max_tokens});
        let answer = http.post(format!("{base}/v2/tasks")).json(&body).send().await.unwrap();
        assert_eq!(answer.status(), 202);
        answer.json().await.unwrap()
    };
    let path = |task: &Value| format!("/v2/tasks/{}", task["task_id"].as_str().unwrap());
    let runs = submit(1_000_000).await;
    until(async || get(&path(&runs)).await["state"] == "running").await;
    let waits = submit(20).await;
    http.delete(format!("{base}{}", path(&runs))).send().await.unwrap();
    until(async || get(&path(&waits)).await["state"] == "done").await;
    running.shutdown(std::future::pending()).await;
    waits["predicted_start_ms"].clone()
}

/// ORCHD-ETA-004, ORCHD-ETA-001
#[tokio::test(flavor = "multi_thread")]
async fn the_first_that_waits_after_a_restart_is_told_when_it_starts() {
    let dir = tempfile::tempdir().unwrap();
    let settings_of = |model: &str| {
        let model = model.to_owned();
        settings(dir.path(), |config| config.pools[0].model = model)
    };
    let stub = stub_with(|faults| faults.token = Duration::from_millis(5));
    assert_eq!(told(&settings_of("builtin:haiku"), &stub, 1).await, Value::Null, "nothing was measured yet");
    let start = told(&settings_of("builtin:haiku"), &stub, 2).await;
    assert!(start.is_u64(), "{start}");
    let file = dir.path().join("measured.json");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(
        told(&settings_of("file:other.gguf"), &stub, 3).await,
        Value::Null,
        "another model's is not its own"
    );
    std::fs::write(&file, "{").unwrap();
    assert_eq!(told(&settings_of("file:other.gguf"), &stub, 4).await, Value::Null);
    assert!(dir.path().join("measured.json.unreadable").exists());
}
