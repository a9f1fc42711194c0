//! The HTTP API: every operation of the contract, its errors, its key.

use wire::operations::{Access, Daemon, of};
use wire::{ErrorCode, ErrorEnvelope};

use crate::harness::setup;

/// POOLD-API-001
#[tokio::test]
async fn every_operation_of_the_contract_is_routed_and_guarded() {
    let setup = setup();
    let manager = setup.start().await;
    manager.ready().await;
    let begun = manager.begin("reset", "").await;
    let model = setup.fetched("pico.gguf", b"not much of a model");
    for operation in of(Daemon::PoolManagerd) {
        let id = match operation.path.split('/').nth(2) {
            Some("pools") => "p",
            Some("catalog") => &model[..8],
            _ => begun.as_str(),
        };
        let path = operation.path.replace("{id}", id);
        let open = manager.request(operation.method, &path).send().await.unwrap();
        let expected = if operation.access == Access::Open { operation.success.0 } else { 401 };
        assert_eq!(open.status(), expected, "{} {path} without a token", operation.method);

        let request = manager.request(operation.method, &path).bearer_auth(manager.running.token());
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), operation.success.0, "{} {path}", operation.method);
        // One operation on the pool must not be in the way of the next.
        manager.idle().await;
        assert!(answer.headers().contains_key("x-correlation-id"), "{path}");

        if operation.path.contains("{id}") {
            let unknown = operation.path.replace("{id}", "nobody");
            let request = manager.request(operation.method, &unknown).bearer_auth(manager.running.token());
            let answer = request.send().await.unwrap();
            assert_eq!(answer.status(), 404, "{unknown}");
            let error = answer.json::<ErrorEnvelope>().await.unwrap().error;
            assert_eq!(error.code, ErrorCode::NotFound);
            let there_is = if operation.path.contains("catalog") { "catalog has" } else { "p" };
            assert!(error.hint.unwrap().contains(there_is), "the hint says what there is");
        }
    }
    manager.running.shutdown().await;
}

#[tokio::test]
async fn refusals_are_the_one_envelope_and_carry_the_callers_correlation_id() {
    let setup = setup();
    let manager = setup.start().await;
    let token = manager.running.token().to_owned();
    let cases = [
        ("GET", "/v2/pools", None, 401, ErrorCode::MissingToken),
        ("GET", "/v2/pools", Some("wrong"), 401, ErrorCode::BadToken),
        ("GET", "/nothing", Some(token.as_str()), 404, ErrorCode::NotFound),
        ("DELETE", "/v2/pools", Some(token.as_str()), 405, ErrorCode::MethodNotAllowed),
    ];
    for (method, path, token, status, code) in cases {
        let mut request = manager.request(method, path).header("x-correlation-id", "mine-1");
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), status, "{method} {path}");
        assert_eq!(answer.headers()["x-correlation-id"], "mine-1");
        assert_eq!(answer.headers()["x-request-id"], "mine-1");
        assert_eq!(answer.json::<ErrorEnvelope>().await.unwrap().error.code, code);
    }
    let request = manager.request("GET", "/health").header("x-correlation-id", "x".repeat(65));
    let answer = request.send().await.unwrap();
    assert_eq!(answer.headers()["x-correlation-id"].len(), 36, "an id that is too long is replaced");
    manager.running.shutdown().await;
}

#[tokio::test]
async fn metrics_count_what_happened() {
    let setup = setup();
    let manager = setup.start().await;
    manager.ready().await;
    let text = manager.metrics().await;
    let labels = r#"{pool_id="p",replica_id="r0"}"#;
    assert!(text.contains(&format!("poold_handoffs_published_total{labels} 1")), "{text}");
    assert!(text.contains(&format!("poold_engine_load_seconds_count{labels} 1")), "{text}");
    assert!(!text.contains("poold_engine_restarts_total{"), "nothing was lost: {text}");
    manager.running.shutdown().await;
}

/// POOLD-API-002
#[tokio::test]
async fn it_is_ready_while_a_pool_serves() {
    let setup = setup();
    let manager = setup.start().await;
    manager.ready().await;
    let ready = async || {
        let answer =
            manager.request("GET", "/ready").bearer_auth(manager.running.token()).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<wire::Readiness>().await.unwrap())
    };
    let (status, answer) = ready().await;
    assert_eq!((status, answer.ready, answer.pools_waiting.len()), (200, true, 0));
    let stop = manager.stop().await;
    manager.ended(&stop).await;
    let (status, answer) = ready().await;
    assert_eq!((status, answer.ready, answer.pools_ready.len()), (503, false, 0));
    assert_eq!(answer.pools_waiting[0].as_str(), "p");
    manager.running.shutdown().await;
}
