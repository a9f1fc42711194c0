//! The other `/v1` routes: text completions and Anthropic's messages.

use super::*;

async fn ready() -> (Orchestrator, RunningStub) {
    let orchestrator = Orchestrator::start().await;
    let stub = stub();
    orchestrator.publish(&stub, "p", 1);
    orchestrator.until_ready("p", true).await;
    (orchestrator, stub)
}

async fn streamed(orchestrator: &Orchestrator, path: &str, mut body: Value) -> String {
    body["stream"] = json!(true);
    let request = orchestrator.http.post(orchestrator.url(path)).json(&body);
    request.send().await.unwrap().text().await.unwrap()
}

fn data(text: &str) -> Vec<Value> {
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    data.filter_map(|data| serde_json::from_str(data).ok()).collect()
}

/// ORCHD-COMPLETIONS-001
#[tokio::test(flavor = "multi_thread")]
async fn a_text_completion_is_the_same_streamed_and_whole() {
    let (orchestrator, stub) = ready().await;
    let body = json!({"model": "p", "prompt": ["once upon"], "max_tokens": 12, "presence_penalty": 0.5,
        "stream_options": {"include_usage": true}});
    let (status, whole) = orchestrator.post("/v1/completions", body.clone()).await;
    assert_eq!(status, 200, "{whole}");
    assert_eq!(
        (&whole["object"], &whole["choices"][0]["finish_reason"]),
        (&json!("text_completion"), &json!("length"))
    );
    let text = streamed(&orchestrator, "/v1/completions", body).await;
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    let chunks = data(&text);
    let joined: String = chunks.iter().filter_map(|c| c["choices"][0]["text"].as_str()).collect();
    assert_eq!(whole["choices"][0]["text"], joined);
    assert_eq!(chunks.last().unwrap()["usage"], whole["usage"]);
    assert_eq!(whole["usage"]["completion_tokens"], 12);
    assert!(
        chunks
            .iter()
            .all(|c| c["object"] == "text_completion" && c["id"].as_str().unwrap().starts_with("cmpl-"))
    );
    let seen = stub.requests().into_iter().find(|seen| seen.path == "/completion").unwrap();
    assert_eq!((&seen.body["prompt"], &seen.body["presence_penalty"]), (&json!("once upon"), &json!(0.5)));
    // OpenAI's own default.
    let (_, short) = orchestrator.post("/v1/completions", json!({"model": "p", "prompt": "x"})).await;
    assert_eq!(short["usage"]["completion_tokens"], 16);
    for (more, param) in [
        (json!({"prompt": ["a", "b"]}), "prompt"),
        (json!({"prompt": "a", "n": 2}), "n"),
        (json!({"prompt": "a", "echo": true}), "echo"),
        (json!({"prompt": "a", "suffix": "z"}), "suffix"),
        (json!({"prompt": "a", "logprobs": 3}), "logprobs"),
        (json!({"prompt": "a", "max_tokens": 0}), "max_tokens"),
    ] {
        let mut body = more.clone();
        body["model"] = json!("p");
        let (status, answer) = orchestrator.post("/v1/completions", body).await;
        assert_eq!((status, &answer["error"]["param"]), (400, &json!(param)), "{more}: {answer}");
    }
    orchestrator.stop().await;
}

fn turn(text: &str) -> Value {
    json!({"model": "p", "max_tokens": 12, "messages": [{"role": "user", "content": text}]})
}

/// ORCHD-MESSAGES-001
#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_the_same_streamed_and_whole() {
    let (orchestrator, _stub) = ready().await;
    let (status, whole) = orchestrator.post("/v1/messages", turn("hello")).await;
    assert_eq!(status, 200, "{whole}");
    assert_eq!((&whole["type"], &whole["stop_reason"]), (&json!("message"), &json!("max_tokens")), "{whole}");
    let text = streamed(&orchestrator, "/v1/messages", turn("hello")).await;
    let events: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    let deltas = events.iter().filter(|name| **name == "content_block_delta").count();
    assert!(deltas > 1, "{text}");
    let frame: Vec<&str> = events.iter().copied().filter(|name| *name != "content_block_delta").collect();
    assert_eq!(
        frame,
        ["message_start", "content_block_start", "content_block_stop", "message_delta", "message_stop"]
    );
    let data = data(&text);
    assert!(data.iter().zip(&events).all(|(data, name)| data["type"] == *name), "{text}");
    let joined: String = data.iter().filter_map(|event| event["delta"]["text"].as_str()).collect();
    assert_eq!(whole["content"], json!([{"type": "text", "text": joined}]));
    let last = data.iter().find(|event| event["type"] == "message_delta").unwrap();
    assert_eq!((&last["usage"], &last["delta"]["stop_reason"]), (&whole["usage"], &whole["stop_reason"]));
    orchestrator.stop().await;
}

/// ORCHD-MESSAGES-003: as Anthropic's package asks, of both its ordinary and its beta part.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_counted_as_the_engine_counts_them_and_nothing_is_generated() {
    let (orchestrator, stub) = ready().await;
    let conversation = json!({"model": "p", "system": "be brief", "messages": [
        {"role": "user", "content": "one two three"},
        {"role": "assistant", "content": [{"type": "text", "text": "four"}]},
        {"role": "user", "content": [{"type": "text", "text": "five six"}]}],
        "tools": [{"name": "get", "input_schema": {"type": "object"}}]});
    for path in ["/v1/messages/count_tokens", "/v1/messages/count_tokens?beta=true"] {
        let request = orchestrator.http.post(orchestrator.url(path)).json(&conversation);
        let answer = request.header("anthropic-version", "2023-06-01").send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let counted: Value = answer.json().await.unwrap();
        assert_eq!(counted.as_object().unwrap().len(), 1, "{counted}");
        assert!(stub.requests().iter().all(|seen| seen.path != "/v1/chat/completions"));
        let template = stub.requests().into_iter().rfind(|seen| seen.path == "/apply-template").unwrap();
        assert_eq!(template.body["messages"][0], json!({"role": "system", "content": "be brief"}));
        assert_eq!(template.body["tools"][0]["function"]["name"], "get");
        let tokenized = stub.requests().into_iter().rfind(|seen| seen.path == "/tokenize").unwrap();
        assert_eq!(tokenized.body["add_special"], true);
    }
    let (_, counted) = orchestrator.post("/v1/messages/count_tokens", conversation.clone()).await;
    let mut message = conversation.clone();
    message["max_tokens"] = json!(2);
    let (_, answered) = orchestrator.post("/v1/messages", message).await;
    assert_eq!(counted["input_tokens"], answered["usage"]["input_tokens"], "{answered}");

    let image =
        json!([{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QQ=="}}]);
    for (name, content, status, kind) in [
        ("p", image, 400, "invalid_request_error"),
        ("pp", json!("x"), 404, "not_found_error"),
        ("p", json!(7), 400, "invalid_request_error"),
    ] {
        let body = json!({"model": name, "messages": [{"role": "user", "content": content}]});
        let (got, answer) = orchestrator.post("/v1/messages/count_tokens", body).await;
        assert_eq!((got, &answer["error"]["type"]), (status, &json!(kind)), "{answer}");
    }
    drop(stub);
    until(async || orchestrator.post("/v1/messages/count_tokens", conversation.clone()).await.0 == 503).await;
    orchestrator.stop().await;
}

/// ORCHD-MESSAGES-002
#[tokio::test(flavor = "multi_thread")]
async fn errors_of_messages_are_in_their_own_shape_wherever_they_come_from() {
    let keys = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(keys.path(), "data aaaaaaaaaaaaaaaa\n").unwrap();
    let path = keys.path().to_owned();
    let orchestrator = Orchestrator::start_with(|config| config.api.tokens_file = Some(path.into())).await;
    let stub = stub();
    orchestrator.publish(&stub, "p", 1);
    let ask = async |key: &str, body: Value| {
        let request = orchestrator.http.post(orchestrator.url("/v1/messages")).header("x-api-key", key);
        let answer = request.json(&body).send().await.unwrap();
        assert!(answer.headers().contains_key("request-id"));
        let (status, length) = (answer.status().as_u16(), answer.content_length());
        let text = answer.text().await.unwrap();
        assert_eq!(length, Some(text.len() as u64));
        (status, serde_json::from_str::<Value>(&text).unwrap())
    };
    let mut wrong = turn("x");
    wrong["model"] = json!("pp");
    let huge = turn(&"x".repeat(super::super::http::MAX_BODY_BYTES));
    for (key, body, status, kind) in [
        ("bbbbbbbbbbbbbbbb", turn("x"), 401, "authentication_error"),
        ("aaaaaaaaaaaaaaaa", wrong, 404, "not_found_error"),
        ("aaaaaaaaaaaaaaaa", json!({"model": "p"}), 400, "invalid_request_error"),
        ("aaaaaaaaaaaaaaaa", huge, 413, "request_too_large"),
    ] {
        let (got, answer) = ask(key, body).await;
        assert_eq!((got, &answer["type"], &answer["error"]["type"]), (status, &json!("error"), &json!(kind)));
        assert!(answer["error"]["message"].is_string(), "{answer}");
    }
    // In the middle of a stream too.
    stub.set_faults(|faults| faults.error_after = Some(3));
    let mut body = turn("x");
    body["stream"] = json!(true);
    let request = orchestrator.http.post(orchestrator.url("/v1/messages")).bearer_auth("aaaaaaaaaaaaaaaa");
    let text = request.json(&body).send().await.unwrap().text().await.unwrap();
    assert!(text.contains("event: error\ndata: {\"type\":\"error\""), "{text}");
    assert!(!text.contains("message_stop"), "{text}");
    orchestrator.stop().await;
}

/// ORCHD-OPENAI-002
#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_any_route_that_hangs_up_cancels_its_generation() {
    let (orchestrator, stub) = ready().await;
    stub.set_faults(|faults| faults.token = Duration::from_millis(5));
    let completion = json!({"model": "p", "prompt": "x", "max_tokens": 1_000_000, "stream": true});
    let mut message = turn("x");
    (message["stream"], message["max_tokens"]) = (json!(true), json!(1_000_000));
    for (path, mut body) in [("/v1/completions", completion), ("/v1/messages", message)] {
        for stream in [true, false] {
            body["stream"] = json!(stream);
            let request = orchestrator.http.post(orchestrator.url(path)).json(&body);
            let asking = tokio::spawn(async move {
                let mut answer = request.send().await.unwrap();
                answer.chunk().await.unwrap();
                std::future::pending::<()>().await;
            });
            stub.wait_for(|stats| stats.busy == 1 && stats.tokens > 0).await.unwrap();
            asking.abort();
            stub.wait_for(|stats| stats.busy == 0).await.unwrap();
        }
    }
    assert_eq!(stub.stats().cancelled, 4);
    orchestrator.stop().await;
}

/// ORCHD-ONCE-001, ORCHD-ONCE-002
#[tokio::test(flavor = "multi_thread")]
async fn vectors_and_scores_come_through_the_queue() {
    let orchestrator = Orchestrator::start_with(|config| {
        config.pools[0].kind = wire::config::PoolKind::Embedding;
        config.pools.push(PoolConfig::new(PoolId::try_new("r").unwrap(), "builtin:haiku"));
        config.pools[1].kind = wire::config::PoolKind::Rerank;
    })
    .await;
    let (embedder, reranker) = (stub(), stub());
    orchestrator.publish(&embedder, "p", 1);
    orchestrator.publish(&reranker, "r", 1);
    orchestrator.until_ready("p", true).await;
    orchestrator.until_ready("r", true).await;
    let body = json!({"model": "p", "input": ["a cat", "dogs are not cats"]});
    let (status, both) = orchestrator.post("/v1/embeddings", body).await;
    assert_eq!((status, &both["model"], &both["data"][1]["index"]), (200, &json!("p"), &json!(1)), "{both}");
    let (_, one) =
        orchestrator.post("/v1/embeddings", json!({"model": "p", "input": "dogs are not cats"})).await;
    assert_eq!(one["data"][0]["embedding"], both["data"][1]["embedding"]);
    assert_eq!(one["usage"]["prompt_tokens"], one["usage"]["total_tokens"]);
    let text = json!({"model": "p", "input": [[1, 2], [3]], "encoding_format": "base64"});
    let (_, ids) = orchestrator.post("/v1/embeddings", text).await;
    assert!(ids["data"][1]["embedding"].is_string(), "{ids}");
    let sent = embedder.requests().into_iter().rfind(|seen| seen.path == "/v1/embeddings").unwrap();
    assert_eq!(sent.body["input"], json!([[1, 2], [3]]));

    let body = json!({"model": "r", "query": "cats", "return_documents": true, "top_n": 1,
        "documents": ["dogs", {"text": "cats"}]});
    let (status, ranked) = orchestrator.post("/v1/rerank", body).await;
    assert_eq!(status, 200, "{ranked}");
    assert_eq!(
        (ranked["results"].as_array().unwrap().len(), &ranked["results"][0]["document"]["text"]),
        (1, &json!("cats"))
    );

    for (path, body, param) in [
        ("/v1/embeddings", json!({"model": "p", "input": []}), "input"),
        ("/v1/embeddings", json!({"model": "p", "input": ["x", 1]}), "input"),
        ("/v1/embeddings", json!({"model": "p", "input": "x", "dimensions": 3}), "dimensions"),
        ("/v1/embeddings", json!({"model": "r", "input": "x"}), "model"),
        ("/v1/rerank", json!({"model": "r", "query": "x", "documents": [7]}), "documents"),
        (
            "/v1/chat/completions",
            json!({"model": "p", "messages": [{"role": "user", "content": "x"}]}),
            "model",
        ),
    ] {
        let (status, answer) = orchestrator.post(path, body.clone()).await;
        assert_eq!((status, &answer["error"]["param"]), (400, &json!(param)), "{body}: {answer}");
    }

    // The same as tasks, with their result in `end` and for whoever asks later.
    let inputs = json!(["a cat", "dogs are not cats"]);
    let (status, task) = orchestrator.post("/v2/tasks", json!({"model": "p", "inputs": inputs})).await;
    assert_eq!(status, 202, "{task}");
    let id = task["task_id"].as_str().unwrap();
    let events = orchestrator.events(id, None).await;
    let (last, end) = (&events.last().unwrap().1, &events.last().unwrap().2);
    assert_eq!((last.as_str(), &end["result"]), ("end", &both["data"]), "{end}");
    assert_eq!(orchestrator.get(&format!("/v2/tasks/{id}")).await["result"], both["data"]);
    let body = json!({"model": "r", "workload": "rerank", "prompt": "cats", "inputs": ["dogs", "cats"]});
    let (_, task) = orchestrator.post("/v2/tasks", body).await;
    let id = task["task_id"].as_str().unwrap();
    orchestrator.events(id, None).await;
    let scores = orchestrator.get(&format!("/v2/tasks/{id}")).await["result"].clone();
    assert_eq!((scores.as_array().unwrap().len(), &scores[0]["index"]), (2, &json!(1)), "{scores}");
    for body in [json!({"model": "r", "inputs": ["x"]}), json!({"model": "p", "prompt": "x"})] {
        let (status, answer) = orchestrator.post("/v2/tasks", body.clone()).await;
        assert_eq!((status, &answer["error"]["param"]), (400, &json!("model")), "{body}: {answer}");
    }

    // A client that goes away takes its work with it.
    embedder.set_faults(|faults| faults.prefill = Duration::from_secs(60));
    let body = json!({"model": "p", "input": "x"});
    let asking = tokio::spawn(orchestrator.http.post(orchestrator.url("/v1/embeddings")).json(&body).send());
    embedder.wait_for(|stats| stats.busy == 1).await.unwrap();
    asking.abort();
    embedder.wait_for(|stats| stats.busy == 0).await.unwrap();
    orchestrator.stop().await;
}

/// ORCHD-RESPONSES-001, ORCHD-RESPONSES-002
#[tokio::test(flavor = "multi_thread")]
async fn a_response_is_the_same_streamed_and_whole() {
    let (orchestrator, stub) = ready().await;
    let body = json!({"model": "p", "instructions": "be brief", "input": "hello", "max_output_tokens": 12,
        "metadata": {"mine": "1"}});
    let (status, whole) = orchestrator.post("/v1/responses", body.clone()).await;
    assert_eq!((status, &whole["object"]), (200, &json!("response")), "{whole}");
    assert_eq!(
        (&whole["status"], &whole["incomplete_details"]["reason"]),
        (&json!("incomplete"), &json!("max_output_tokens"))
    );
    assert_eq!((&whole["usage"]["output_tokens"], &whole["metadata"]["mine"]), (&json!(12), &json!("1")));
    let seen = stub.requests().into_iter().find(|seen| seen.path == "/v1/chat/completions").unwrap();
    assert_eq!(seen.body["messages"][0], json!({"role": "system", "content": "be brief"}));

    let text = streamed(&orchestrator, "/v1/responses", body).await;
    let events: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    let data = data(&text);
    assert!(
        data.iter()
            .zip(&events)
            .enumerate()
            .all(|(n, (data, name))| { data["type"] == *name && data["sequence_number"] == n })
    );
    let frame: Vec<&str> =
        events.iter().copied().filter(|name| *name != "response.output_text.delta").collect();
    assert_eq!(
        frame,
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.incomplete",
        ]
    );
    let joined: String = data.iter().filter_map(|event| event["delta"].as_str()).collect();
    assert_eq!(whole["output"][0]["content"][0]["text"], joined);
    let last = &data.last().unwrap()["response"];
    assert_eq!((&last["usage"], &last["status"]), (&whole["usage"], &whole["status"]));
    assert_eq!(last["output"][0]["content"], whole["output"][0]["content"]);

    for (more, param) in
        [(json!({"store": true}), "store"), (json!({"previous_response_id": "r"}), "previous_response_id")]
    {
        let mut body = json!({"model": "p", "input": "x"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let (status, answer) = orchestrator.post("/v1/responses", body).await;
        assert_eq!((status, &answer["error"]["param"]), (400, &json!(param)), "{answer}");
    }
    orchestrator.stop().await;
}

/// ORCHD-RESPONSES-001
#[tokio::test(flavor = "multi_thread")]
async fn a_response_whose_engine_is_lost_in_the_middle_ends_as_failed() {
    let orchestrator = Orchestrator::start().await;
    let stub = stub_with(|faults| faults.drop_after = Some(3));
    orchestrator.publish(&stub, "p", 1);
    orchestrator.until_ready("p", true).await;
    let text = streamed(&orchestrator, "/v1/responses", json!({"model": "p", "input": "hello"})).await;
    let last = data(&text).pop().unwrap();
    assert_eq!(last["type"], "response.failed", "{text}");
    assert_eq!(
        (&last["response"]["status"], &last["response"]["error"]["code"]),
        (&json!("failed"), &json!("ENGINE_LOST"))
    );
    orchestrator.stop().await;
}
