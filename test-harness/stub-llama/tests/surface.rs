//! The surface as an HTTP client meets it.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use futures_util::StreamExt as _;
use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use stub_llama::{Continuation, Faults, RunningStub, Stub, StubConfig, tokenize};

fn client() -> Client {
    Client::builder().no_proxy().build().unwrap()
}

fn stub(change: impl FnOnce(&mut StubConfig)) -> RunningStub {
    let mut config = StubConfig::default();
    change(&mut config);
    Stub::start(config).unwrap()
}

fn post(stub: &RunningStub, path: &str, body: &Value) -> RequestBuilder {
    client()
        .post(format!("{}{path}", stub.url()))
        .header("content-type", "application/json")
        .body(body.to_string())
}

async fn json(request: RequestBuilder) -> (StatusCode, Value) {
    let response = request.send().await.unwrap();
    let status = response.status();
    (status, serde_json::from_str(&response.text().await.unwrap()).unwrap())
}

async fn frames(request: RequestBuilder) -> Vec<Value> {
    let text = request.send().await.unwrap().text().await.unwrap();
    let data = |frame: &str| match frame.strip_prefix("data: ").unwrap() {
        "[DONE]" => json!("[DONE]"),
        data => serde_json::from_str(data).unwrap(),
    };
    text.split_terminator("\n\n").map(data).collect()
}

#[tokio::test]
async fn a_completion_streams_the_models_tokens_and_ends_at_its_limit() {
    let stub = stub(|_| {});
    let body = json!({"prompt": "A haiku", "n_predict": 5, "seed": 3, "stream": true});
    let frames = frames(post(&stub, "/completion", &body)).await;
    let expected: Vec<_> = Continuation::new(&tokenize("A haiku"), 3).take(5).collect();
    let tokens: Vec<_> = frames[..5]
        .iter()
        .map(|f| (f["tokens"][0].as_u64().unwrap() as u32, f["content"].as_str().unwrap().to_owned()))
        .collect();
    assert_eq!(tokens, expected);
    let end = &frames[5];
    assert_eq!(end["stop"], true);
    assert_eq!(end["stop_type"], "limit");
    assert_eq!((&end["tokens_predicted"], &end["tokens_evaluated"]), (&json!(5), &json!(2)));
    assert_eq!(end["content"], "");
    assert_eq!(frames.len(), 6);
}

#[tokio::test]
async fn a_prompt_of_token_ids_goes_on_where_the_ids_end() {
    let stub = stub(|_| {});
    let ask = |prompt: Value, n: u64| {
        let body = json!({"prompt": prompt, "n_predict": n, "seed": 9, "return_tokens": true});
        json(post(&stub, "/completion", &body))
    };
    let (_, whole) = ask(json!("Once upon"), 10).await;
    let mut ids = tokenize("Once upon");
    ids.extend(whole["tokens"].as_array().unwrap()[..4].iter().map(|id| id.as_u64().unwrap() as u32));
    let (_, rest) = ask(json!(ids), 6).await;
    assert_eq!(rest["tokens"].as_array().unwrap()[..], whole["tokens"].as_array().unwrap()[4..]);
}

#[tokio::test]
async fn a_chat_announces_its_role_counts_its_tokens_and_says_done() {
    let stub = stub(|c| c.faults.eos_after = Some(3));
    let body = json!({
        "messages": [{"role": "user", "content": "hi"}], "stream": true,
        "stream_options": {"include_usage": true}, "logprobs": true,
    });
    let frames = frames(post(&stub, "/v1/chat/completions", &body)).await;
    assert_eq!(frames[0]["choices"][0]["delta"], json!({"role": "assistant", "content": null}));
    let first = &frames[1]["choices"][0];
    assert!(first["delta"]["content"].is_string() && first["logprobs"]["content"][0]["id"].is_u64());
    let n = frames.len();
    assert_eq!(frames[n - 3]["choices"][0]["finish_reason"], "stop");
    assert_eq!(frames[n - 2]["choices"], json!([]));
    assert_eq!(frames[n - 2]["usage"]["completion_tokens"], 4, "three words and the end token");
    assert_eq!(frames[n - 1], "[DONE]");

    let (status, whole) =
        json(post(&stub, "/v1/chat/completions", &json!({"messages": body["messages"], "max_tokens": 2})))
            .await;
    assert_eq!(status, 200);
    assert_eq!(whole["choices"][0]["finish_reason"], "length");
    assert_eq!(whole["usage"]["completion_tokens"], 2);
}

#[tokio::test]
async fn a_stop_string_ends_the_text_before_itself() {
    let stub = stub(|_| {});
    let words: Vec<_> = Continuation::new(&tokenize("x"), 0).take(4).map(|(_, t)| t).collect();
    let body = json!({"prompt": "x", "stop": [words[3].trim()]});
    let (_, answer) = json(post(&stub, "/completion", &body)).await;
    assert_eq!(answer["stop_type"], "word");
    assert!(words.concat().starts_with(answer["content"].as_str().unwrap()), "{answer}");
    assert!(!answer["content"].as_str().unwrap().contains(words[3].trim()));
}

#[tokio::test]
async fn the_template_that_is_shown_is_the_one_that_is_used() {
    let stub = stub(|_| {});
    let messages = json!([{"role": "user", "content": "hello there"}]);
    let (_, shown) = json(post(&stub, "/apply-template", &json!({"messages": messages}))).await;
    let body = json!({"prompt": shown["prompt"], "n_predict": 4, "seed": 1});
    let (_, native) = json(post(&stub, "/completion", &body)).await;
    let body = json!({"messages": messages, "max_tokens": 4, "seed": 1});
    let (_, chat) = json(post(&stub, "/v1/chat/completions", &body)).await;
    assert_eq!(native["content"], chat["choices"][0]["message"]["content"]);
    let (_, counted) = json(post(&stub, "/tokenize", &json!({"content": shown["prompt"]}))).await;
    assert_eq!(
        counted["tokens"].as_array().unwrap().len() as u64,
        native["tokens_evaluated"].as_u64().unwrap()
    );
}

#[tokio::test]
async fn only_as_many_generations_run_as_there_are_slots() {
    let stub = stub(|c| {
        c.parallel = 2;
        c.faults.hang_after = Some(1);
    });
    let body = json!({"prompt": "x", "stream": true});
    let run = |_| {
        let request = post(&stub, "/completion", &body);
        tokio::spawn(async move { request.send().await.unwrap().bytes_stream().count().await })
    };
    let running: Vec<_> = (0..3).map(run).collect();
    stub.wait_for(|s| s.busy == 2 && s.waiting == 1 && s.tokens == 2).await.unwrap();
    let (_, slots) = json(client().get(format!("{}/slots", stub.url()))).await;
    assert_eq!(slots[0]["is_processing"], true);
    assert_eq!(slots[1]["next_token"][0]["n_decoded"], 1);
    running.iter().for_each(tokio::task::JoinHandle::abort);
    let stats = stub.wait_for(|s| s.busy == 0 && s.waiting == 0).await.unwrap();
    assert_eq!(stats.finished, 0);
    let (_, slots) = json(client().get(format!("{}/slots", stub.url()))).await;
    assert_eq!(slots[0]["is_processing"], false);
}

#[tokio::test]
async fn it_is_unavailable_while_it_loads_and_ok_after() {
    let stub = stub(|c| c.faults.load = std::time::Duration::from_millis(150));
    let health = || json(client().get(format!("{}/health", stub.url())));
    let (status, body) = health().await;
    assert_eq!(status, 503);
    let error = json!({"code": 503, "message": "Loading model", "type": "unavailable_error"});
    assert_eq!(body, json!({"error": error}));
    loop {
        let (status, body) = health().await;
        if status == 200 {
            assert_eq!(body, json!({"status": "ok"}));
            break;
        }
    }
}

#[tokio::test]
async fn without_its_key_only_health_answers() {
    let stub = stub(|c| c.api_keys = vec!["secret".to_owned()]);
    for (path, key, expected) in [
        ("/health", None, 200),
        ("/props", None, 401),
        ("/metrics", Some("wrong"), 401),
        ("/slots", Some("secret"), 200),
        ("/nowhere", Some("secret"), 404),
    ] {
        let mut request = client().get(format!("{}{path}", stub.url()));
        if let Some(key) = key {
            request = request.bearer_auth(key);
        }
        assert_eq!(request.send().await.unwrap().status(), expected, "{path} with {key:?}");
    }
    let seen = stub.requests();
    assert_eq!(seen[3].headers["authorization"], "Bearer secret");
}

#[tokio::test]
async fn a_prompt_beyond_the_context_says_both_numbers() {
    let stub = stub(|c| (c.ctx_size, c.parallel) = (8, 2));
    let (status, body) = json(post(&stub, "/completion", &json!({"prompt": "a b c d e"}))).await;
    assert_eq!(status, 400);
    assert_eq!(body["error"]["type"], "exceed_context_size_error");
    assert_eq!((&body["error"]["n_prompt_tokens"], &body["error"]["n_ctx"]), (&json!(5), &json!(4)));
}

#[tokio::test]
async fn a_generation_without_a_limit_ends_at_the_context() {
    let stub = stub(|c| c.ctx_size = 20);
    let (_, body) = json(post(&stub, "/completion", &json!({"prompt": "a b"}))).await;
    assert_eq!((&body["stop_type"], &body["truncated"]), (&json!("limit"), &json!(true)));
    assert_eq!(body["tokens_predicted"], 17);
}

#[tokio::test]
async fn frames_cut_into_bytes_are_the_same_frames() {
    let body = json!({"prompt": "x", "n_predict": 30, "seed": 5, "stream": true});
    let mut answers = Vec::new();
    for change in
        [|_: &mut Faults| {}, |f: &mut Faults| f.split_bytes = true, |f: &mut Faults| f.split_utf8 = true]
    {
        let stub = stub(|c| change(&mut c.faults));
        let chunks: Vec<_> =
            post(&stub, "/completion", &body).send().await.unwrap().bytes_stream().collect().await;
        let cut = chunks.iter().any(|c| std::str::from_utf8(c.as_ref().unwrap()).is_err());
        let bytes: Vec<u8> = chunks.into_iter().flat_map(|c| c.unwrap()).collect();
        answers.push((String::from_utf8(bytes).unwrap(), cut));
    }
    assert_eq!(answers[0].0, answers[1].0);
    assert_eq!(answers[0].0, answers[2].0);
    assert!(!answers[0].1 && answers[1].1 && answers[2].1, "the switches cut characters apart");
}

#[tokio::test]
async fn each_way_to_fail_mid_stream_fails_as_it_says() {
    let body = json!({"prompt": "x", "n_predict": 9, "stream": true});
    let ask = |faults: Faults| {
        let body = body.clone();
        async move {
            let stub = stub(|c| c.faults = faults);
            post(&stub, "/completion", &body).send().await.unwrap().bytes().await
        }
    };
    let three = Some(3);
    assert!(ask(Faults { drop_after: three, ..Faults::default() }).await.is_err());
    assert!(ask(Faults { exit_after: three, ..Faults::default() }).await.is_err());
    assert!(ask(Faults { crash_after: three, ..Faults::default() }).await.is_err());
    let error = ask(Faults { error_after: three, ..Faults::default() }).await.unwrap();
    let text = String::from_utf8(error.to_vec()).unwrap();
    assert!(text.lines().rev().nth(1).unwrap().starts_with(r#"data: {"error":{"#), "{text}");
    let invalid = ask(Faults { invalid_utf8_after: three, ..Faults::default() }).await.unwrap();
    assert!(std::str::from_utf8(&invalid).is_err());
    let giant = Faults { giant_line_after: three, giant_line_bytes: Some(100_000), ..Faults::default() };
    assert!(ask(giant).await.unwrap().len() > 100_000);
}

#[tokio::test]
async fn a_mute_engine_is_healthy_and_never_says_a_word() {
    let stub = stub(|c| c.faults.mute = true);
    let response = post(&stub, "/completion", &json!({"prompt": "x", "stream": true})).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(client().get(format!("{}/health", stub.url())).send().await.unwrap().status(), 200);
    assert_eq!(stub.stats().busy, 1);
    drop(response);
    let stats = stub.wait_for(|s| s.busy == 0).await.unwrap();
    assert_eq!((stats.tokens, stats.cancelled), (0, 1));
}

#[tokio::test]
async fn a_stopped_stub_breaks_its_streams_and_frees_its_port() {
    let mut stub = stub(|c| c.faults.hang_after = Some(1));
    let response = post(&stub, "/completion", &json!({"prompt": "x", "stream": true})).send().await.unwrap();
    stub.wait_for(|s| s.tokens == 1).await.unwrap();
    stub.stop();
    assert!(response.bytes().await.is_err());
    std::net::TcpListener::bind(stub.addr()).unwrap();
}
