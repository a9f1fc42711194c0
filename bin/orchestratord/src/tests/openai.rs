//! The OpenAI-compatible front door.

use super::*;

fn body(stream: bool) -> Value {
    json!({"model": "p", "stream": stream, "max_tokens": 12, "stream_options": {"include_usage": true},
        "messages": [{"role": "user", "content": "hello"}]})
}

/// ORCHD-OPENAI-001, STREAM-007, STREAM-006
#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_answer_is_the_whole_answer_in_pieces() {
    let orchestrator = Orchestrator::start().await;
    let stub = stub();
    orchestrator.publish(&stub, "p", 1);
    orchestrator.until_ready("p", true).await;
    let (status, whole) = orchestrator.post("/v1/chat/completions", body(false)).await;
    assert_eq!(status, 200, "{whole}");
    let request = orchestrator.http.post(orchestrator.url("/v1/chat/completions")).json(&body(true));
    let text = request.send().await.unwrap().text().await.unwrap();
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    assert!(text.lines().all(|line| line.is_empty() || line.starts_with("data: ")), "{text}");
    let chunks: Vec<Value> =
        text.split("\n\n").filter_map(|f| serde_json::from_str(f.strip_prefix("data: ")?).ok()).collect();
    let joined: String =
        chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(whole["choices"][0]["message"]["content"], joined);
    assert_eq!(chunks.last().unwrap()["usage"], whole["usage"]);
    assert_eq!(whole["usage"]["completion_tokens"], 12);
    assert!(chunks.iter().all(|chunk| chunk["model"] == "p" && chunk["id"] == chunks[0]["id"]));
    let finishes: Vec<&Value> =
        chunks.iter().map(|chunk| &chunk["choices"][0]["finish_reason"]).filter(|f| !f.is_null()).collect();
    assert_eq!(finishes, [&whole["choices"][0]["finish_reason"]]);
    orchestrator.stop().await;
}

/// ORCHD-OPENAI-002
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_cancels_its_generation() {
    let orchestrator = Orchestrator::start().await;
    let stub = stub_with(|faults| faults.token = Duration::from_millis(5));
    orchestrator.publish(&stub, "p", 1);
    orchestrator.until_ready("p", true).await;
    let mut body = body(true);
    body["max_tokens"] = json!(1_000_000);
    let request = orchestrator.http.post(orchestrator.url("/v1/chat/completions")).json(&body);
    let mut answer = request.send().await.unwrap();
    answer.chunk().await.unwrap().unwrap();
    stub.wait_for(|stats| stats.busy == 1).await.unwrap();
    drop(answer);
    stub.wait_for(|stats| stats.busy == 0).await.unwrap();
    until(async || orchestrator.get("/v2/pools/p/health").await["slots_free"] == 1).await;
    orchestrator.stop().await;
}

/// LCPP-001, SEC-006
#[tokio::test(flavor = "multi_thread")]
async fn the_engine_sees_neither_the_clients_headers_nor_its_unknown_fields() {
    let orchestrator = Orchestrator::start().await;
    let stub = stub();
    orchestrator.publish(&stub, "p", 1);
    orchestrator.until_ready("p", true).await;
    let mut sent = body(false);
    sent["slot_save_path"] = json!("/etc");
    sent["top_k"] = json!(3);
    let request = orchestrator.http.post(orchestrator.url("/v1/chat/completions")).json(&sent);
    let answer = request.header("X-Conversation-Id", "spy").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let seen = stub.requests().into_iter().find(|seen| seen.path == "/v1/chat/completions").unwrap();
    assert_eq!(seen.body["slot_save_path"], Value::Null, "{:?}", seen.body);
    assert_eq!(seen.body["top_k"], 3);
    assert!(!seen.headers.contains_key("x-conversation-id"), "{:?}", seen.headers);

    let remote = json!({"model": "p", "messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]}]});
    assert_eq!(orchestrator.post("/v1/chat/completions", remote).await.0, 400);
    orchestrator.stop().await;
}

/// ORCHD-OPENAI-003
#[tokio::test(flavor = "multi_thread")]
async fn each_model_that_is_listed_is_shown_and_no_other() {
    let orchestrator =
        Orchestrator::start_with(|config| config.pools[0].aliases = vec!["gpt-4o-mini".to_owned()]).await;
    let list = orchestrator.get("/v1/models").await;
    let ids: Vec<&str> = list["data"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["gpt-4o-mini", "p"]);
    // What Anthropic's SDK reads of the same.
    assert_eq!(
        (&list["first_id"], &list["last_id"], &list["has_more"]),
        (&json!("gpt-4o-mini"), &json!("p"), &json!(false))
    );
    let card = &list["data"][1];
    assert_eq!((&card["type"], &card["display_name"]), (&json!("model"), &json!("p")));
    assert!(card["created_at"].as_str().is_some_and(|at| at.ends_with('Z') && at.len() == 20), "{card}");
    for (n, id) in ids.iter().enumerate() {
        assert_eq!(orchestrator.get(&format!("/v1/models/{id}")).await, list["data"][n]);
    }
    let (status, answer) = orchestrator.get_raw("/v1/models/gpt-4o-mimi").await;
    assert_eq!((status, &answer["error"]["code"]), (404, &json!("MODEL_NOT_FOUND")), "{answer}");
    assert!(answer["error"]["hint"].as_str().unwrap().contains("gpt-4o-mini"), "{answer}");
    orchestrator.stop().await;
}
