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
    let (status, answer) = orchestrator.post("/v2/pools/p/preload", json!({"model_path": "/m"})).await;
    assert_eq!((status, &answer["error"]["param"]), (400, &json!("model_path")), "{answer}");
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

/// ORCHD-ADMIT-010
#[tokio::test(flavor = "multi_thread")]
async fn strict_determinism_is_only_promised_by_a_pool_that_is_deterministic() {
    let orchestrator = Orchestrator::start_with(|config| {
        let exact = PoolConfig::new(PoolId::try_new("exact").unwrap(), "builtin:haiku");
        config.pools.push(PoolConfig { deterministic: true, ..exact });
    })
    .await;
    let body = |model: &str| json!({"model": model, "prompt": "x", "determinism": "strict"});
    let (status, answer) = orchestrator.post("/v2/tasks", body("p")).await;
    assert_eq!((status, &answer["error"]["param"]), (400, &json!("determinism")), "{answer}");
    assert!(answer["error"]["hint"].as_str().unwrap().contains("exact"), "{answer}");
    assert_eq!(orchestrator.post("/v2/tasks", body("exact")).await.0, 202);
    let best_effort = json!({"model": "p", "prompt": "x", "determinism": "best_effort"});
    assert_eq!(orchestrator.post("/v2/tasks", best_effort).await.0, 202);
    orchestrator.stop().await;
}

/// ORCHD-ADMIT-010: an answer that draws its tokens does not go on behind a seam, one that does not draw does.
#[tokio::test(flavor = "multi_thread")]
async fn a_strict_answer_that_draws_its_tokens_is_not_continued_by_another_engine() {
    let orchestrator = Orchestrator::start_with(|config| config.pools[0].deterministic = true).await;
    for (temperature, last, generation) in [(0.7, "error", 1), (0.0, "end", 3)] {
        let mut dying = stub_with(|faults| faults.token = Duration::from_millis(20));
        orchestrator.publish(&dying, "p", generation);
        orchestrator.until_ready("p", true).await;
        let more = json!({"determinism": "strict", "temperature": temperature, "max_tokens": 60});
        let task = orchestrator.submit(more).await;
        // It has said something: what has not may always begin again.
        dying.wait_for(|stats| stats.tokens >= 3).await.unwrap();
        dying.stop();
        let next = stub();
        orchestrator.publish(&next, "p", generation + 1);
        let events = orchestrator.events(&task, None).await;
        assert_eq!(events.last().unwrap().1, last, "{temperature}: {events:?}");
    }
    orchestrator.stop().await;
}

/// ORCHD-LIST-001
#[tokio::test(flavor = "multi_thread")]
async fn pages_of_tasks_hold_each_task_once() {
    let orchestrator = Orchestrator::start().await;
    let mut submitted = Vec::new();
    for _ in 0..5 {
        submitted.push(orchestrator.submit(json!({})).await);
    }
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = orchestrator.get(&format!("/v2/tasks?limit=2{cursor}")).await;
        let tasks = page["tasks"].as_array().unwrap();
        assert!(tasks.len() <= 2);
        seen.extend(tasks.iter().map(|task| task["task_id"].as_str().unwrap().to_owned()));
        // One that comes meanwhile is newer, and does not move the pages.
        orchestrator.submit(json!({})).await;
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    seen.reverse();
    assert_eq!(seen, submitted);
    let (status, answer) = orchestrator.get_raw("/v2/tasks?cursor=x").await;
    assert_eq!((status, &answer["error"]["param"]), (400, &json!("cursor")), "{answer}");
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

/// ORCHD-META-002
#[tokio::test(flavor = "multi_thread")]
async fn the_document_that_is_served_names_every_operation_and_no_other() {
    let orchestrator = Orchestrator::start().await;
    let answer = orchestrator.http.get(orchestrator.url("/v2/openapi.json")).send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "application/json");
    let document: wire::meta::OpenApiDocument = answer.json().await.unwrap();
    assert_eq!(document.openapi, "3.1.0");
    let described = document.paths.iter().flat_map(|(path, item)| {
        item.as_object().unwrap().keys().map(move |method| (method.to_uppercase(), path.clone()))
    });
    let served = operations::of(Daemon::Orchestratord).map(|op| (op.method.to_owned(), op.path.to_owned()));
    let described: std::collections::BTreeSet<_> = described.collect();
    assert_eq!(described, served.collect());
    orchestrator.stop().await;
}
