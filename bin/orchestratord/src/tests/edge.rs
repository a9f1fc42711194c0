//! Who may ask, what may be asked, and whether everything in the contract is there.

use super::*;
use wire::operations::{self, Daemon};

/// OV-006
#[tokio::test(flavor = "multi_thread")]
async fn every_operation_of_the_contract_is_routed() {
    let orchestrator = Orchestrator::start().await;
    for op in operations::of(Daemon::Orchestratord) {
        let path = op.path.replace("{id}", "p");
        let method = op.method.parse().unwrap();
        let request = orchestrator.http.request(method, orchestrator.url(&path)).body("{}");
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        // A stream that goes on for ever has no end to read to.
        let endless = status == 200 && matches!(op.success.1, operations::Body::Sse(_));
        let text = if endless { String::new() } else { answer.text().await.unwrap() };
        assert_ne!(status, 405, "{} {}: {text}", op.method, op.path);
        assert!(!text.contains("nothing is served"), "{} {}: {text}", op.method, op.path);
        assert!(status == op.success.0 || op.errors.contains(&status), "{} {}: {status}", op.method, op.path);
    }
    let (status, answer) = orchestrator.post("/v2/nothing", json!({})).await;
    assert_eq!((status, &answer["error"]["code"]), (404, &json!("NOT_FOUND")));
    orchestrator.stop().await;
}

/// ORCHD-OPS-001
#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_cannot_reach_pool_managerd_says_so() {
    let orchestrator = Orchestrator::start().await;
    for what in ["drain", "undrain", "reload", "reset"] {
        let (status, answer) = orchestrator.post(&format!("/v2/pools/p/{what}"), json!({})).await;
        assert_eq!((status, &answer["error"]["code"]), (503, &json!("POOL_UNREADY")), "{what}: {answer}");
        assert_eq!(answer["error"]["pool_id"], "p", "{what}");
    }
    assert_eq!(orchestrator.get_raw("/v2/operations").await.0, 503);
    let (status, answer) = orchestrator.post("/v2/pools/p/preload", json!({})).await;
    assert_eq!((status, &answer["error"]["code"]), (503, &json!("POOL_UNREADY")), "{answer}");
    assert_eq!(orchestrator.post("/v2/pools/unknown/preload", json!({})).await.0, 404);
    orchestrator.stop().await;
}

/// ORCHD-ADMIT-002, ORCHD-ADMIT-005
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_request_is_told_which_field() {
    let orchestrator = Orchestrator::start().await;
    for (body, status, param) in [
        (json!({"model": "p", "prompt": "x", "surprise": 1}), 400, "surprise"),
        (json!({"model": "p", "prompt": "x", "temperature": 99}), 400, "temperature"),
        (json!({"model": "p", "prompt": "x", "deadline_ms": 0}), 400, "deadline_ms"),
        (json!({"model": "pp", "prompt": "x"}), 404, "model"),
    ] {
        let (got, answer) = orchestrator.post("/v2/tasks", body.clone()).await;
        assert_eq!((got, &answer["error"]["param"]), (status, &json!(param)), "{body}: {answer}");
    }
    let (_, answer) = orchestrator.post("/v2/tasks", json!({"model": "pp", "prompt": "x"})).await;
    assert!(answer["error"]["hint"].as_str().unwrap().contains("did you mean p"), "{answer}");
    let (status, answer) = orchestrator.get_raw("/v2/tasks?limit=-1").await;
    assert_eq!((status, &answer["error"]["param"]), (400, &json!("limit")), "{answer}");
    orchestrator.stop().await;
}

/// SEC-002
#[tokio::test(flavor = "multi_thread")]
async fn a_web_page_cannot_drive_the_daemon() {
    let orchestrator = Orchestrator::start().await;
    let ask = |name: &'static str, value: &'static str| {
        let request = orchestrator.http.get(orchestrator.url("/v2/pools")).header(name, value);
        async { request.send().await.unwrap().status().as_u16() }
    };
    assert_eq!(ask("Host", "evil.example").await, 403);
    assert_eq!(ask("Origin", "http://evil.example").await, 403);
    assert_eq!(ask("Sec-Fetch-Site", "cross-site").await, 403);
    assert_eq!(ask("Host", "localhost:8080").await, 200);
    orchestrator.stop().await;
}

/// SEC-003, SEC-007
#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_required_scoped_and_keep_tasks_apart() {
    let keys = tempfile::NamedTempFile::new().unwrap();
    // A named temporary file is 0600 already.
    std::fs::write(keys.path(), "data aaaaaaaaaaaaaaaa\ndata bbbbbbbbbbbbbbbb\ncontrol cccccccccccccccc\n")
        .unwrap();
    let path = keys.path().to_owned();
    let orchestrator = Orchestrator::start_with(|config| config.api.tokens_file = Some(path.into())).await;
    let get = |path: &str, token: &str| {
        let request = orchestrator.http.get(orchestrator.url(path));
        let request = if token.is_empty() { request } else { request.bearer_auth(token) };
        async {
            let answer = request.send().await.unwrap();
            let status = answer.status().as_u16();
            let body = answer.text().await.unwrap();
            let code = serde_json::from_str::<Value>(&body).ok().map(|v| v["error"]["code"].clone());
            (status, code.and_then(|code| Some(code.as_str()?.to_owned())).unwrap_or_default())
        }
    };
    assert_eq!(get("/v2/pools", "").await, (401, "MISSING_TOKEN".to_owned()));
    assert_eq!(get("/v2/pools", "aaaaaaaaaaaaaaab").await, (401, "BAD_TOKEN".to_owned()));
    assert_eq!(get("/v2/pools", "aaaaaaaaaaaaaaaa").await.0, 200);
    assert_eq!(get("/metrics", "aaaaaaaaaaaaaaaa").await, (403, "FORBIDDEN".to_owned()));
    assert_eq!(get("/v2/pools/p/logs", "aaaaaaaaaaaaaaaa").await, (403, "FORBIDDEN".to_owned()));
    assert_eq!(get("/metrics", "cccccccccccccccc").await.0, 200);
    assert_eq!(get("/health", "").await.0, 200);

    let body = json!({"task_id": "mine", "model": "p", "prompt": "x"});
    let request = orchestrator.http.post(orchestrator.url("/v2/tasks")).bearer_auth("aaaaaaaaaaaaaaaa");
    assert_eq!(request.json(&body).send().await.unwrap().status(), 202);
    assert_eq!(get("/v2/tasks/mine", "aaaaaaaaaaaaaaaa").await.0, 200);
    assert_eq!(get("/v2/tasks/mine", "bbbbbbbbbbbbbbbb").await.0, 404);
    assert_eq!(get("/v2/tasks/mine", "cccccccccccccccc").await.0, 200);
    orchestrator.stop().await;
}

/// SEC-001
#[tokio::test]
async fn a_listener_that_others_can_reach_needs_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let open = settings(dir.path(), |config| config.api.listen = ([0, 0, 0, 0], 0).into());
    let error = app::start(&open, open.config.api.listen).await.err().unwrap().to_string();
    assert!(error.contains("tokens_file: generate"), "{error}");
    let closed = settings(dir.path(), |config| {
        config.api.listen = ([0, 0, 0, 0], 0).into();
        config.api.tokens_file = Some(std::path::PathBuf::from("generate").into());
    });
    assert!(closed.tokens().unwrap().is_some());
    let made = std::fs::metadata(dir.path().join("tokens")).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&made.permissions()) & 0o777, 0o600);
}

/// SEC-005
#[tokio::test(flavor = "multi_thread")]
async fn a_body_or_header_block_that_is_too_large_is_refused() {
    let orchestrator = Orchestrator::start().await;
    let large = "x".repeat(super::super::http::MAX_BODY_BYTES + 1);
    let answer = orchestrator.http.post(orchestrator.url("/v2/tasks")).body(large).send().await.unwrap();
    assert_eq!(answer.status(), 413);
    let mut request = orchestrator.http.get(orchestrator.url("/health"));
    for i in 0..100 {
        request = request.header(format!("x-{i}"), "1");
    }
    assert_eq!(request.send().await.unwrap().status(), 431);
    let deep = "[".repeat(100_000);
    let answer = orchestrator.http.post(orchestrator.url("/v2/tasks")).body(deep).send().await.unwrap();
    assert_eq!(answer.status(), 400);
    orchestrator.stop().await;
}
