//! Artifacts, transcripts and receipts over HTTP.

use http::StatusCode;

use super::*;

/// printf abc | sha256sum
const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

/// ORCHD-ARTIFACT-001
#[tokio::test(flavor = "multi_thread")]
async fn bytes_are_stored_under_their_digest_and_come_back_as_they_were() {
    let orchestrator = Orchestrator::start().await;
    let post = |bytes: Vec<u8>| orchestrator.http.post(orchestrator.url("/v2/artifacts")).body(bytes).send();
    for _ in 0..2 {
        let answer = post(b"abc".to_vec()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::CREATED);
        assert_eq!(answer.json::<Value>().await.unwrap(), json!({"sha256": ABC, "bytes": 3}));
    }
    let url = orchestrator.url(&format!("/v2/artifacts/{ABC}"));
    let answer = orchestrator.http.get(url).send().await.unwrap();
    assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
    assert_eq!(answer.bytes().await.unwrap(), &b"abc"[..]);
    assert_eq!(post(Vec::new()).await.unwrap().status(), StatusCode::BAD_REQUEST);
    assert_eq!(post(vec![0; 2 << 20]).await.unwrap().status(), StatusCode::PAYLOAD_TOO_LARGE);
    for name in [&"0".repeat(64), "nope", "%2e%2e"] {
        let answer = orchestrator.http.get(orchestrator.url(&format!("/v2/artifacts/{name}"))).send();
        assert_eq!(answer.await.unwrap().status(), StatusCode::NOT_FOUND, "{name}");
    }
    orchestrator.stop().await;
}

/// ORCHD-ARTIFACT-002
#[tokio::test(flavor = "multi_thread")]
async fn an_artifact_is_its_owners_and_controls() {
    let tokens = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(
        tokens.path(),
        "data alices-secret-token\ndata bobs-secret-token\ncontrol roots-secret-token\n",
    )
    .unwrap();
    let path = tokens.path().to_owned();
    let orchestrator = Orchestrator::start_with(move |config| {
        config.api.tokens_file = Some(wire::config::TokensFile::Path(path));
    })
    .await;
    let url = |path: &str| orchestrator.url(path);
    let stored = orchestrator.http.post(url("/v2/artifacts")).bearer_auth("alices-secret-token").body("abc");
    assert_eq!(stored.send().await.unwrap().status(), StatusCode::CREATED);
    for (token, status) in [("alices", 200), ("bobs", 404), ("roots", 200)] {
        let read = orchestrator.http.get(url(&format!("/v2/artifacts/{ABC}")));
        let answer = read.bearer_auth(format!("{token}-secret-token")).send().await.unwrap();
        assert_eq!(answer.status(), status, "{token}");
    }
    orchestrator.stop().await;
}

/// ORCHD-TRANSCRIPT-001, ORCHD-RECEIPT-001, ORCHD-RECEIPT-002
#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_asks_for_it_leaves_what_was_asked_and_answered() {
    let orchestrator = Orchestrator::start().await;
    let stub = stub();
    let handoff = json!({
        "url": stub.url(), "pool_id": "p", "generation": 1, "engine_version": "v1", "engine_digest": "d1",
        "build_flags": ["-DGGML_NATIVE=ON"], "flags": ["--parallel", "1", "--no-cont-batching"],
        "model": {"id": "m", "path": "", "digest": "abc"},
    });
    orchestrator.handoffs.publish(&serde_json::from_value(handoff).unwrap()).unwrap();
    orchestrator.until_ready("p", true).await;
    let messages = json!([{"role": "user", "content": "a secret question"}]);
    let body = json!({"model": "p", "messages": messages, "max_tokens": 9, "top_p": 0.5, "transcript": true});
    let (status, accepted) = orchestrator.post("/v2/tasks", body.clone()).await;
    assert_eq!(status, 202, "{accepted}");
    let task = accepted["task_id"].as_str().unwrap();
    let events = orchestrator.events(task, None).await;
    let end = &events.last().unwrap().2;
    let receipt = &end["receipt"];
    assert_eq!(orchestrator.get(&format!("/v2/tasks/{task}")).await["receipt"], *receipt);
    let template = "f24189f08c85a1eb19a737306c3a13e85462ee33d964f28108d64a2485fa2171";
    for (name, value) in [
        ("engine_version", json!("v1")),
        ("engine_digest", json!("d1")),
        ("build_flags", json!(["-DGGML_NATIVE=ON"])),
        ("model_digest", json!("abc")),
        ("chat_template_sha256", json!(template)),
        ("slot_mode", json!({"slots": 1, "continuous_batching": false})),
    ] {
        assert_eq!(receipt[name], value, "{name} of {receipt}");
    }
    let sampling = &receipt["sampling"];
    assert_eq!(
        (&sampling["max_tokens"], &sampling["top_p"], &sampling["top_k"]),
        (&json!(9), &json!(0.5), &json!(40))
    );
    assert_eq!(receipt["tokens_sha256"].as_str().unwrap().len(), 64);
    let seed: u32 = receipt["seed"].as_str().unwrap().parse().unwrap();
    let asked = stub.requests().into_iter().find(|seen| seen.path == "/completion").unwrap();
    assert_eq!(asked.body["seed"], seed, "the engine was given the seed that the receipt says");

    let digest = receipt["transcript_sha256"].as_str().unwrap();
    let transcript = orchestrator.get(&format!("/v2/artifacts/{digest}")).await;
    assert_eq!(transcript["request"]["messages"], messages);
    assert_eq!(transcript["request"]["seed"], receipt["seed"]);
    let tokens = events.iter().filter(|event| event.1 == "token");
    let text: String = tokens.filter_map(|event| event.2["t"].as_str()).collect();
    assert_eq!((&transcript["text"], &transcript["tokens_out"]), (&json!(text), &json!(9)));
    assert_eq!(transcript["tokens"].as_array().unwrap().len(), 9);
    assert_eq!(transcript["receipt"]["tokens_sha256"], receipt["tokens_sha256"]);

    let mut silent = body;
    silent["transcript"] = json!(false);
    let (_, accepted) = orchestrator.post("/v2/tasks", silent).await;
    let events = orchestrator.events(accepted["task_id"].as_str().unwrap(), None).await;
    assert!(events.last().unwrap().2["receipt"]["transcript_sha256"].is_null());
    orchestrator.stop().await;
}
