//! From handoff files to ready replicas.

use super::*;

/// ORCHD-AUTOBIND-001 (the founding documents' ORCHD-HANDOFF-AUTOBIND-0002, ORCHD-AUTOBIND-UT-1001)
#[tokio::test(flavor = "multi_thread")]
async fn a_handoff_binds_a_replica_and_its_withdrawal_takes_it_down() {
    let orchestrator = Orchestrator::start().await;
    let stub = stub();
    assert_eq!(orchestrator.get("/v2/pools/p/health").await["ready"], false);
    orchestrator.publish(&stub, "p", 1);
    orchestrator.until_ready("p", true).await;
    let health = orchestrator.get("/control/pools/p/health").await;
    assert_eq!(health["engine_version"], "stub-1", "{health}");
    assert_eq!((&health["slots_total"], &health["slots_free"]), (&json!(1), &json!(1)), "{health}");
    assert_eq!(orchestrator.get("/ready").await["pools_ready"], json!(["p"]));

    let key = "p".parse().map(|pool| wire::ReplicaKey { pool, replica: wire::ReplicaId::nth(0) }).unwrap();
    orchestrator.handoffs.withdraw(&key).unwrap();
    orchestrator.until_ready("p", false).await;
    assert_eq!(orchestrator.http.get(orchestrator.url("/ready")).send().await.unwrap().status(), 503);
    orchestrator.stop().await;
}

/// DET-005
#[tokio::test(flavor = "multi_thread")]
async fn what_a_replica_may_claim_is_shown_and_quoted_in_receipts() {
    let orchestrator = Orchestrator::start().await;
    let stub = stub();
    let claim = json!({"result": "passed", "device": "a card", "tested_at": "2026-01-01T00:00:00Z"});
    let handoff = json!({"url": stub.url(), "pool_id": "x", "generation": 1, "determinism": claim});
    orchestrator.handoffs.publish(&serde_json::from_value(handoff).unwrap()).unwrap();
    until(async || orchestrator.get("/v2/pools").await.to_string().contains("\"x\"")).await;
    orchestrator.until_ready("x", true).await;
    let pool = orchestrator.get("/v2/pools/x").await;
    assert_eq!(pool["replicas"][0]["determinism"], claim, "{pool}");
    let task = orchestrator.submit(json!({"model": "x"})).await;
    let (_, _, end) = orchestrator.events(&task, None).await.pop().unwrap();
    assert_eq!(end["receipt"]["determinism"], claim, "{end}");
    assert_eq!(orchestrator.get(&format!("/v2/tasks/{task}")).await["receipt"]["determinism"], claim);
    // An engine whose handoff does not say: neither does the receipt.
    orchestrator.publish(&stub, "p", 1);
    orchestrator.until_ready("p", true).await;
    let task = orchestrator.submit(json!({})).await;
    let (_, _, end) = orchestrator.events(&task, None).await.pop().unwrap();
    assert_eq!(end["receipt"]["determinism"], serde_json::Value::Null, "{end}");
    orchestrator.stop().await;
}

/// ORCHD-REG-001
#[tokio::test(flavor = "multi_thread")]
async fn how_fast_a_replica_is_and_on_which_cards_is_shown_as_far_as_it_was_said_or_measured() {
    let orchestrator = Orchestrator::start().await;
    let stub = stub();
    let handoff = json!({
        "url": stub.url(), "pool_id": "x", "generation": 1, "load_ms": 1234, "device_mask": "GPU-0",
    });
    orchestrator.handoffs.publish(&serde_json::from_value(handoff).unwrap()).unwrap();
    until(async || orchestrator.get("/v2/pools").await.to_string().contains("\"x\"")).await;
    orchestrator.until_ready("x", true).await;
    let replica = async || orchestrator.get("/v2/pools/x").await["replicas"][0].clone();
    let before = replica().await;
    assert_eq!((&before["hints"], &before["device_mask"]), (&json!({"load_ms": 1234}), &json!("GPU-0")));
    let task = orchestrator.submit(json!({"model": "x"})).await;
    assert_eq!(orchestrator.events(&task, None).await.last().unwrap().1, "end");
    until(async || replica().await["hints"]["tokens_per_s"].as_f64().is_some_and(|rate| rate > 0.0)).await;
    assert_eq!(replica().await["hints"]["load_ms"], 1234);
    orchestrator.stop().await;
}

/// ORCHD-AUTOBIND-002, HANDOFF-005
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_turns_corrupt_keeps_the_binding_it_made() {
    let orchestrator = Orchestrator::start().await;
    let stub = stub();
    orchestrator.publish(&stub, "p", 1);
    orchestrator.until_ready("p", true).await;
    let before = orchestrator.rescans().await;
    std::fs::write(orchestrator.handoffs.path().join("p.r0.json"), "{\"url\":").unwrap();
    until(async || orchestrator.rescans().await > before).await;
    assert_eq!(orchestrator.get("/v2/pools/p/health").await["ready"], true);
    let task = orchestrator.submit(json!({})).await;
    assert_eq!(orchestrator.events(&task, None).await.last().unwrap().1, "end");
    orchestrator.stop().await;
}

/// ORCHD-AUTOBIND-002
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_cannot_be_bound_keeps_the_binding_there_is_and_says_why() {
    let orchestrator = Orchestrator::start().await;
    let stub = stub();
    let claim = |key: Option<&str>| {
        let claim = json!({"url": stub.url(), "pool_id": "p", "generation": 1, "api_key": key});
        serde_json::from_value(claim).unwrap()
    };
    orchestrator.handoffs.publish(&claim(None)).unwrap();
    orchestrator.until_ready("p", true).await;
    orchestrator.handoffs.publish(&claim(Some("a\nb"))).unwrap();
    let last_error = async || orchestrator.get("/v2/pools/p/health").await["last_error"].clone();
    until(async || last_error().await.is_string()).await;
    assert_eq!(orchestrator.get("/v2/pools/p/health").await["ready"], true);
    // A task that is given a slot has an engine to run on.
    let task = orchestrator.submit(json!({})).await;
    assert_eq!(orchestrator.events(&task, None).await.last().unwrap().1, "end");
    // The reason goes with the claim that it is of.
    orchestrator.handoffs.publish(&claim(None)).unwrap();
    until(async || last_error().await.is_null()).await;
    orchestrator.stop().await;
}

/// HANDOFF-004: a file written by hand, with any name, for a pool that no configuration names.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_with_only_a_url_makes_a_pool_that_serves() {
    let orchestrator = Orchestrator::start().await;
    let stub = stub();
    let text = json!({"url": stub.url()}).to_string();
    std::fs::write(orchestrator.handoffs.path().join("llamacpp.json"), text).unwrap();
    until(async || orchestrator.get("/v2/pools").await.to_string().contains("\"default\"")).await;
    orchestrator.until_ready("default", true).await;
    let task = orchestrator.submit(json!({"model": "default"})).await;
    assert_eq!(orchestrator.events(&task, None).await.last().unwrap().1, "end");
    orchestrator.stop().await;
}

/// RELIABILITY trap 12: a removed and recreated directory goes silent for a watcher.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_was_deleted_and_made_again_is_seen_again() {
    let orchestrator = Orchestrator::start().await;
    let stub = stub();
    orchestrator.publish(&stub, "p", 1);
    orchestrator.until_ready("p", true).await;
    std::fs::remove_dir_all(orchestrator.handoffs.path()).unwrap();
    orchestrator.until_ready("p", false).await;
    orchestrator.publish(&stub, "p", 2);
    orchestrator.until_ready("p", true).await;
    orchestrator.stop().await;
}

/// ORCHD-GATE-001: an engine that stops answering is not dispatched to, though its file stays.
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_stops_answering_goes_down_by_our_own_probe() {
    let orchestrator = Orchestrator::start().await;
    let mut stub = stub();
    orchestrator.publish(&stub, "p", 1);
    orchestrator.until_ready("p", true).await;
    stub.stop();
    orchestrator.until_ready("p", false).await;
    assert!(orchestrator.handoffs.path().join("p.r0.json").exists());
    orchestrator.stop().await;
}

impl Orchestrator {
    async fn rescans(&self) -> u64 {
        self.running.state().metrics.handoff_rescans.get()
    }
}
