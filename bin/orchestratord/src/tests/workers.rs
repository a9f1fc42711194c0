//! Engines that someone else runs and registers.

use super::*;

fn worker(url: &str, more: Value) -> Value {
    let mut body = json!({"url": url, "pool_id": "ext", "replica_id": "w1", "model": "theirs"});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

impl Orchestrator {
    async fn delete(&self, path: &str) -> (u16, Value) {
        let answer = self.http.delete(self.url(path)).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }
}

/// ORCHD-WORKER-001, ORCHD-GATE-001
#[tokio::test(flavor = "multi_thread")]
async fn a_registered_engine_serves_once_it_answers_until_it_is_unregistered() {
    let orchestrator = Orchestrator::start().await;
    let mut engine = stub();
    let (status, answer) = orchestrator.post("/v2/workers/register", worker(&engine.url(), json!({}))).await;
    assert_eq!(
        (status, &answer["model"], answer.get("expires_in_ms")),
        (202, &json!("theirs"), None),
        "{answer}"
    );
    orchestrator.until_ready("ext", true).await;
    // By its pool and by its model's name.
    for model in ["ext", "theirs"] {
        let task = orchestrator.submit(json!({"model": model})).await;
        assert_eq!(orchestrator.events(&task, None).await.last().unwrap().1, "end");
    }
    let list = orchestrator.get("/v2/workers").await;
    assert_eq!(list["workers"][0]["ready"], true, "{list}");
    let pool = orchestrator.get("/v2/pools/ext").await;
    assert_eq!(
        (&pool["replicas"][0]["phase"], &pool["model_ref"]),
        (&json!("ready"), &json!("theirs")),
        "{pool}"
    );
    // It is gated as our own: one that no longer answers gets nothing.
    engine.stop();
    orchestrator.until_ready("ext", false).await;
    let pool = orchestrator.get("/v2/pools/ext").await;
    assert_eq!(pool["replicas"][0]["phase"], "backoff", "{pool}");
    let list = orchestrator.get("/v2/workers").await;
    assert!(list["workers"][0]["last_error"].is_string() && list["workers"][0]["ready"] == false, "{list}");
    assert_eq!(orchestrator.delete("/v2/workers/ext/w1").await.0, 200);
    until(async || orchestrator.get("/v2/pools/ext").await["replicas"] == json!([])).await;
    assert_eq!(orchestrator.get("/v2/workers").await["workers"], json!([]));
    for (status, answer) in [
        orchestrator.delete("/v2/workers/ext/w1").await,
        orchestrator.post("/v2/workers/ext/w1/heartbeat", json!({})).await,
        orchestrator.delete("/v2/workers/ext/NO%20NAME").await,
    ] {
        assert_eq!((status, &answer["error"]["code"]), (404, &json!("NOT_FOUND")), "{answer}");
    }
    orchestrator.stop().await;
}

/// ORCHD-WORKER-001: what runs on it when it is unregistered ends, on it.
#[tokio::test(flavor = "multi_thread")]
async fn what_runs_on_an_engine_that_is_unregistered_goes_on_to_its_end() {
    let orchestrator = Orchestrator::start().await;
    let engine = stub_with(|faults| faults.token = Duration::from_millis(10));
    orchestrator.post("/v2/workers/register", worker(&engine.url(), json!({}))).await;
    orchestrator.until_ready("ext", true).await;
    let task = orchestrator.submit(json!({"model": "ext", "max_tokens": 50})).await;
    until(async || orchestrator.get(&format!("/v2/tasks/{task}")).await["state"] == "running").await;
    assert_eq!(orchestrator.delete("/v2/workers/ext/w1").await.0, 200);
    orchestrator.until_ready("ext", false).await;
    let events = orchestrator.events(&task, None).await;
    assert_eq!(events.last().unwrap().1, "end", "{events:?}");
    assert!(events.iter().all(|event| event.1 != "resumed"), "{events:?}");
    orchestrator.stop().await;
}

/// ORCHD-WORKER-005
#[tokio::test(flavor = "multi_thread")]
async fn a_url_or_a_name_that_must_not_be_is_refused_by_name() {
    let orchestrator = Orchestrator::start().await;
    let engine = stub();
    orchestrator.publish(&engine, "p", 1);
    orchestrator.until_ready("p", true).await;
    for (more, status, param) in [
        (json!({"url": "http://10.0.0.1:80"}), 400, "url"),
        (json!({"url": "http://localhost:80"}), 400, "url"),
        (json!({"url": "https://127.0.0.1:80"}), 400, "url"),
        (json!({"slots": 0}), 400, "slots"),
        (json!({"ttl_ms": 1}), 400, "ttl_ms"),
        (json!({"model": ""}), 400, "model"),
        (json!({"api_key": "a\nb"}), 400, "api_key"),
        (json!({"pool_id": "../x"}), 400, "pool_id"),
        (json!({"pool_id": "p", "replica_id": "r0"}), 409, "replica_id"),
    ] {
        let (got, answer) =
            orchestrator.post("/v2/workers/register", worker(&engine.url(), more.clone())).await;
        assert_eq!((got, &answer["error"]["param"]), (status, &json!(param)), "{more}: {answer}");
    }
    orchestrator.stop().await;
}

/// ORCHD-WORKER-005: an address of a network that the configuration names. That one is not ours, so
/// that nobody answers there is what is seen.
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_in_an_allowed_network_is_probed() {
    let orchestrator =
        Orchestrator::start_with(|config| config.workers.networks = vec!["192.0.2.0/24".parse().unwrap()])
            .await;
    let (status, answer) =
        orchestrator.post("/v2/workers/register", worker("http://192.0.2.1:80", json!({}))).await;
    assert_eq!(status, 202, "{answer}");
    until(async || orchestrator.get("/v2/workers").await["workers"][0]["last_error"].is_string()).await;
    assert_eq!(orchestrator.get("/v2/workers").await["workers"][0]["ready"], false);
    orchestrator.stop().await;
}

/// ORCHD-WORKER-002: a handoff that comes later has the name; when it goes, the registration has it again.
#[tokio::test(flavor = "multi_thread")]
async fn a_registration_gives_way_to_a_handoff_of_the_same_name() {
    let orchestrator = Orchestrator::start().await;
    let (theirs, ours) = (stub(), stub());
    let body = worker(&theirs.url(), json!({"pool_id": "p", "replica_id": "r0"}));
    orchestrator.post("/v2/workers/register", body).await;
    orchestrator.until_ready("p", true).await;
    let url = async || orchestrator.get("/v2/pools/p").await["replicas"][0]["url"].clone();
    assert_eq!(url().await, theirs.url());
    orchestrator.publish(&ours, "p", 1);
    until(async || url().await == ours.url()).await;
    let list = orchestrator.get("/v2/workers").await;
    assert_eq!(list["workers"][0]["ready"], false, "{list}");
    let key = "p".parse().map(|pool| wire::ReplicaKey { pool, replica: wire::ReplicaId::nth(0) }).unwrap();
    orchestrator.handoffs.withdraw(&key).unwrap();
    until(async || url().await == theirs.url()).await;
    orchestrator.until_ready("p", true).await;
    orchestrator.stop().await;
}

/// ORCHD-WORKER-004
#[tokio::test(flavor = "multi_thread")]
async fn a_registered_engine_is_used_again_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path(), |_| {});
    let engine = stub();
    let http = Client::orchestratord();
    for round in 0..2 {
        let running = app::start(&settings, settings.config.api.listen).await.unwrap();
        let base = format!("http://{}", running.addr());
        if round == 0 {
            let register = http.post(format!("{base}/v2/workers/register"));
            let answer = register.json(&worker(&engine.url(), json!({}))).send().await.unwrap();
            assert_eq!(answer.status(), 202);
        }
        until(async || {
            let pool = http.get(format!("{base}/v2/pools/ext/health")).send().await.unwrap();
            pool.json::<Value>().await.unwrap()["ready"] == true
        })
        .await;
        running.shutdown(std::future::pending()).await;
    }
}

/// ORCHD-WORKER-003
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_whose_heartbeats_stop_is_unbound() {
    let orchestrator = Orchestrator::start().await;
    let engine = stub();
    let body = worker(&engine.url(), json!({"ttl_ms": 1_500}));
    let (_, answer) = orchestrator.post("/v2/workers/register", body).await;
    assert!(answer["expires_in_ms"].as_u64().is_some_and(|left| left <= 1_500), "{answer}");
    orchestrator.until_ready("ext", true).await;
    let (status, answer) = orchestrator.post("/v2/workers/ext/w1/heartbeat", json!({})).await;
    assert_eq!((status, &answer["ready"]), (200, &json!(true)), "{answer}");
    orchestrator.until_ready("ext", false).await;
    assert_eq!(orchestrator.get("/v2/workers").await["workers"], json!([]));
    orchestrator.stop().await;
}
