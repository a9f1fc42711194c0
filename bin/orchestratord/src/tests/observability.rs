//! What is measured, and what the dashboard asks for.

use super::*;

/// The names that the contract promises.
const PROMISED: [&str; 21] = [
    "orchd_tasks_enqueued_total",
    "orchd_tasks_started_total",
    "orchd_tasks_rejected_total",
    "orchd_tasks_canceled_total",
    "orchd_tasks_failed_total",
    "orchd_tokens_in_total",
    "orchd_tokens_out_total",
    "orchd_queue_depth",
    "orchd_slots_total",
    "orchd_slots_free",
    "orchd_streams_open",
    "orchd_stream_evictions_total",
    "orchd_slow_readers_total",
    "orchd_placement_decisions_total",
    "orchd_retries_total",
    "orchd_handoff_rescans_total",
    "orchd_queue_wait_seconds_bucket",
    "orchd_first_token_seconds_bucket",
    "orchd_inter_token_seconds_bucket",
    "orchd_decode_seconds_bucket",
    "orchd_eta_error_seconds_bucket",
];

/// The sample names that `/metrics` may hold, by its own declarations.
async fn declared(orchestrator: &Orchestrator) -> Vec<String> {
    let answer = orchestrator.http.get(orchestrator.url("/metrics")).send().await.unwrap();
    let text = answer.text().await.unwrap();
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let samples = types.flat_map(|(name, kind)| match kind {
        "counter" => vec![format!("{name}_total")],
        "histogram" => ["bucket", "sum", "count"].map(|part| format!("{name}_{part}")).to_vec(),
        _ => vec![name.to_owned()],
    });
    samples.collect()
}

/// ORCHD-META-003
#[tokio::test(flavor = "multi_thread")]
async fn the_version_says_what_the_program_was_built_from() {
    let orchestrator = Orchestrator::start().await;
    let version = orchestrator.get("/v2/meta/version").await;
    let built = crate::built::version("orchestratord");
    assert_eq!(version, serde_json::to_value(&built).unwrap());
    assert!(version.as_object().unwrap().contains_key("commit"), "null, never absent: {version}");
    orchestrator.stop().await;
}

/// ORCHD-METRICS-002
#[tokio::test(flavor = "multi_thread")]
async fn every_promised_metric_is_there_and_the_dashboard_asks_for_no_other() {
    let orchestrator = Orchestrator::start_with(|config| config.pools[0].queue.capacity = 1).await;
    // A counter is declared once it has counted: one of everything has to happen.
    let finished = orchestrator.submit(json!({})).await;
    assert_eq!(orchestrator.post("/v2/tasks", json!({"model": "p", "prompt": "x"})).await.0, 429);
    let stub = stub();
    orchestrator.publish(&stub, "p", 1);
    assert_eq!(orchestrator.events(&finished, None).await.last().unwrap().1, "end");
    stub.set_faults(|faults| faults.error_after = Some(2));
    let failed = orchestrator.submit(json!({})).await;
    assert_eq!(orchestrator.events(&failed, None).await.last().unwrap().1, "error");
    stub.set_faults(|faults| (faults.error_after, faults.token) = (None, Duration::from_millis(20)));
    let cancelled = orchestrator.submit(json!({"max_tokens": 1_000})).await;
    assert_eq!(orchestrator.post(&format!("/v2/tasks/{cancelled}/cancel"), json!({})).await.0, 202);
    let declared = declared(&orchestrator).await;
    for name in PROMISED {
        assert!(declared.iter().any(|known| known == name), "{name} is missing in {declared:?}");
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/grafana-dashboard.json");
    let dashboard: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let text = dashboard.to_string();
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let names: Vec<&str> =
        text.split(|c| !word(c)).filter(|w| w.starts_with("orchd_") || w.starts_with("poold_")).collect();
    assert!(names.len() > 20, "{names:?}");
    for name in names {
        assert!(
            declared.iter().any(|known| known == name),
            "the dashboard asks for {name}, which is not measured"
        );
    }
    orchestrator.stop().await;
}

/// ORCHD-META-001
#[tokio::test(flavor = "multi_thread")]
async fn capabilities_say_what_can_be_asked_for_now() {
    let orchestrator = Orchestrator::start_with(|config| {
        config.pools[0].aliases = vec!["gpt-4o-mini".to_owned()];
        config.api.body_limits = [("/v1/chat/completions".to_owned(), 2 << 20)].into();
    })
    .await;
    let before = orchestrator.get("/v2/meta/capabilities").await;
    assert_eq!(
        (&before["pools"][0]["ready"], &before["pools"][0]["models"]),
        (&json!(false), &json!([])),
        "{before}"
    );
    let stub = stub();
    orchestrator.publish(&stub, "p", 1);
    orchestrator.until_ready("p", true).await;
    let now = orchestrator.get("/v2/meta/capabilities").await;
    let pool = &now["pools"][0];
    assert_eq!(
        (&pool["ready"], &pool["kind"], &pool["slots_total"]),
        (&json!(true), &json!("chat"), &json!(1)),
        "{now}"
    );
    assert_eq!((&pool["models"], &pool["engines"]), (&json!(["stub-model"]), &json!(["stub-1"])), "{now}");
    assert_eq!(pool["aliases"], json!(["gpt-4o-mini"]));
    assert_eq!(pool["ctx"], 4096);
    assert!(now["routes"].as_array().unwrap().contains(&json!("/v1/messages")), "{now}");
    assert_eq!(now["limits"]["body_bytes"], super::super::http::MAX_BODY_BYTES);
    assert_eq!(now["limits"]["body_bytes_of_routes"]["/v1/chat/completions"], 2 << 20);
    orchestrator.stop().await;
}
