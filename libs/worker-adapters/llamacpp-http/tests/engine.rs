//! The adapter against an engine: the stub where the engine must fail on request, fixed answers
//! where its words matter.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use adapter_host::{
    ChatRequest, CompletionRequest, EngineItem, EngineRequest, Finished, ProbeError, Probed, Prompt,
    Sampling, SoFar, StreamFault, SubmitError, TokenStream, WorkerAdapter as _,
};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use stub_llama::{Continuation, Faults, RunningStub, Stub, StubConfig, tokenize};
use wire::event::FinishReason;
use wire::openai::ChatCompletionRequest;
use wire::task::Message;
use wire::{ErrorCode, TraceContext};
use wiremock::matchers::{method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};
use worker_adapters_llamacpp_http::LlamaCpp;

fn engine(change: impl FnOnce(&mut StubConfig)) -> (RunningStub, LlamaCpp) {
    let mut config = StubConfig::default();
    change(&mut config);
    let key = config.api_keys.first().cloned();
    let stub = Stub::start(config).unwrap();
    let adapter = LlamaCpp::new(&stub.url(), key.as_deref()).unwrap();
    (stub, adapter)
}

fn completion(prompt: &str, max_tokens: u32) -> EngineRequest {
    let sampling = Sampling { max_tokens: Some(max_tokens), seed: Some(4), ..Sampling::default() };
    let prompt = Prompt::Text(prompt.to_owned());
    EngineRequest::Completion(CompletionRequest {
        prompt,
        sampling,
        cache_prompt: false,
        so_far: SoFar::Nothing,
    })
}

fn user(content: &str) -> Vec<Message> {
    serde_json::from_value(json!([{"role": "user", "content": content}])).unwrap()
}

fn chat(change: impl FnOnce(&mut ChatCompletionRequest)) -> EngineRequest {
    let mut request = ChatCompletionRequest {
        model: "the client's name for it".to_owned(),
        messages: user("hi"),
        ..ChatCompletionRequest::default()
    };
    change(&mut request);
    EngineRequest::Chat(ChatRequest { request, cache_prompt: true }.into())
}

/// Everything a stream says: text, tokens, raw chunks and how it ended.
async fn all(mut stream: TokenStream) -> (String, Vec<u32>, Vec<Value>, Result<Finished, StreamFault>) {
    let (mut text, mut tokens, mut raws) = (String::new(), Vec::new(), Vec::new());
    let end = loop {
        match stream.next().await.unwrap() {
            Ok(EngineItem::Chunk(chunk)) => {
                text.push_str(&chunk.text);
                raws.push(serde_json::from_str(chunk.raw()).unwrap());
                tokens.extend(chunk.tokens);
            }
            Ok(EngineItem::Finished(finished)) => break Ok(finished),
            Err(fault) => break Err(fault),
        }
    };
    assert!(stream.next().await.is_none(), "nothing comes after the end");
    (text, tokens, raws, end)
}

fn expected(prompt: &str, count: usize) -> (String, Vec<u32>) {
    let words: Vec<_> = Continuation::new(&tokenize(prompt), 4).take(count).collect();
    (words.iter().map(|(_, text)| text.as_str()).collect(), words.iter().map(|(id, _)| *id).collect())
}

#[tokio::test]
async fn a_completion_carries_every_token_and_the_engines_counts() {
    let (stub, adapter) = engine(|_| {});
    let (text, tokens, _, end) = all(adapter.submit(completion("a b c", 20), None).await.unwrap()).await;
    assert_eq!((text, tokens), expected("a b c", 20));
    let end = end.unwrap();
    assert_eq!((end.reason, end.tokens_in, end.tokens_out), (FinishReason::Length, 3, 20));
    let sent = &stub.requests()[0];
    let expected = json!({
        "prompt": "a b c", "stream": true, "return_tokens": true, "cache_prompt": false, "n_predict": 20,
        "seed": 4,
    });
    assert_eq!(sent.body, expected, "what was not asked for is not sent");
    assert!(!sent.headers.contains_key("authorization"));
}

/// LCPP-003
#[tokio::test]
async fn every_way_to_cut_the_bytes_gives_the_same_tokens() {
    for change in [|f: &mut Faults| f.split_bytes = true, |f: &mut Faults| f.split_utf8 = true] {
        let (_stub, adapter) = engine(|c| change(&mut c.faults));
        let (text, tokens, _, end) = all(adapter.submit(completion("x", 40), None).await.unwrap()).await;
        assert_eq!((text, tokens), expected("x", 40));
        end.unwrap();
    }
}

#[tokio::test]
async fn messages_are_rendered_by_the_engines_own_template() {
    let (stub, adapter) = engine(|c| c.faults.eos_after = Some(2));
    let request = CompletionRequest {
        prompt: Prompt::Messages(user("hi")),
        sampling: Sampling { stop: vec!["§".to_owned()], ..Sampling::default() },
        cache_prompt: true,
        so_far: SoFar::Nothing,
    };
    let (_, _, _, end) = all(adapter.submit(EngineRequest::Completion(request), None).await.unwrap()).await;
    assert_eq!(end.unwrap().reason, FinishReason::Stop);
    let seen = stub.requests();
    assert_eq!((seen[0].path.as_str(), seen[1].path.as_str()), ("/apply-template", "/completion"));
    assert_eq!(seen[1].body["prompt"], "<|user|> hi \n<|assistant|>");
    assert_eq!(seen[1].body["stop"], json!(["§"]));
    assert_eq!(seen[1].body.get("n_predict"), None);
}

#[tokio::test]
async fn a_chat_passes_its_chunks_through_and_turns_the_usage_into_counts() {
    let (stub, adapter) = engine(|_| {});
    let request = chat(|r| {
        r.max_completion_tokens = Some(5);
        r.seed = Some(4);
        r.logprobs = Some(true);
        r.tools = Some(json!([{"type": "function"}]));
    });
    let (text, tokens, raws, end) = all(adapter.submit(request, None).await.unwrap()).await;
    let prompt = "<|user|> hi \n<|assistant|>";
    assert_eq!((text, tokens), expected(prompt, 5));
    let end = end.unwrap();
    let asked = tokenize(prompt).len() as u64;
    assert_eq!((end.reason, end.tokens_in, end.tokens_out), (FinishReason::Length, asked, 5));
    assert_eq!(raws[0]["choices"][0]["delta"]["role"], "assistant");
    assert_eq!(raws.last().unwrap()["choices"][0]["finish_reason"], "length");
    assert!(raws.iter().all(|raw| raw.get("usage").is_none()), "the usage chunk became the counts");
    let body = &stub.requests()[0].body;
    assert_eq!(body["stream_options"], json!({"include_usage": true}));
    assert_eq!((&body["max_tokens"], &body["cache_prompt"]), (&json!(5), &json!(true)));
    assert_eq!(body["tools"], json!([{"type": "function"}]));
    assert_eq!(body.get("model"), None, "the client's name for the model is not the engine's business");
}

/// LCPP-002
#[tokio::test]
async fn a_dropped_stream_frees_its_slot() {
    let (stub, adapter) = engine(|c| c.faults.hang_after = Some(2));
    let mut stream = adapter.submit(completion("x", 9), None).await.unwrap();
    stream.next().await.unwrap().unwrap();
    assert_eq!(stub.stats().busy, 1);
    drop(stream);
    let stats = stub.wait_for(|s| s.busy == 0).await.unwrap();
    assert_eq!((stats.cancelled, stats.finished), (1, 0));
}

#[tokio::test]
async fn a_submission_dropped_while_it_waits_leaves_the_engines_queue() {
    let (stub, adapter) = engine(|c| c.faults.mute = true);
    let _running = adapter.submit(completion("x", 9), None).await.unwrap();
    let waiting = adapter.submit(completion("y", 9), None);
    tokio::select! {
        _ = waiting => unreachable!("there is one slot"),
        _ = stub.wait_for(|s| s.waiting == 1) => {}
    }
    stub.wait_for(|s| s.waiting == 0 && s.busy == 1).await.unwrap();
}

/// LCPP-004
#[tokio::test]
async fn each_fault_of_the_engine_has_its_name() {
    let fault = |change: fn(&mut Faults)| async move {
        let (_stub, adapter) = engine(|c| change(&mut c.faults));
        let (_, tokens, _, end) = all(adapter.submit(completion("x", 9), None).await.unwrap()).await;
        (tokens.len(), end.unwrap_err())
    };
    let (tokens, lost) = fault(|f| f.crash_after = Some(3)).await;
    let broke = StreamFault::Lost("its connection broke in the middle of the answer".to_owned());
    assert_eq!((tokens, lost), (3, broke));
    let (tokens, lost) = fault(|f| f.drop_after = Some(3)).await;
    assert!(tokens == 3 && matches!(lost, StreamFault::Lost(_)), "{tokens} {lost:?}");
    let (tokens, engine) = fault(|f| f.error_after = Some(3)).await;
    assert_eq!((tokens, engine), (3, StreamFault::Engine("decode: failed, ret = -3".to_owned())));
    let (tokens, protocol) = fault(|f| f.invalid_utf8_after = Some(3)).await;
    assert!(tokens == 3 && matches!(protocol, StreamFault::Protocol(_)), "{tokens} {protocol:?}");
    let (tokens, protocol) = fault(|f| f.giant_line_after = Some(3)).await;
    assert!(tokens == 3 && matches!(protocol, StreamFault::Protocol(_)), "{tokens} {protocol:?}");
}

#[tokio::test]
async fn a_stream_that_ends_before_its_end_is_a_lost_engine() {
    let server = MockServer::start().await;
    let half = "data: {\"content\":\"a\",\"tokens\":[1],\"stop\":false}\n\n";
    answer(&server, "/completion", ResponseTemplate::new(200).set_body_raw(half, "text/event-stream")).await;
    let adapter = LlamaCpp::new(&server.uri(), None).unwrap();
    let (text, _, _, end) = all(adapter.submit(completion("x", 9), None).await.unwrap()).await;
    assert_eq!(text, "a");
    assert!(matches!(end, Err(StreamFault::Lost(_))));
}

#[tokio::test]
async fn a_prompt_beyond_the_context_is_refused_with_both_numbers() {
    let (_stub, adapter) = engine(|c| c.ctx_size = 4);
    let SubmitError::Refused(error) = adapter.submit(completion("a b c d e f", 9), None).await.unwrap_err()
    else {
        panic!("another replica would refuse it too")
    };
    assert_eq!(error.code, ErrorCode::ContextOverflow);
    assert_eq!(error.message, "the prompt has 6 tokens, the context holds 4");
}

#[tokio::test]
async fn an_engine_that_loads_or_is_gone_is_lost_and_says_so_to_a_probe() {
    let (mut stub, adapter) = engine(|c| c.faults.load = std::time::Duration::from_secs(3600));
    assert!(matches!(adapter.submit(completion("x", 1), None).await, Err(SubmitError::Lost(_))));
    assert_eq!(adapter.probe().await, Err(ProbeError::Loading));
    stub.stop();
    assert!(matches!(adapter.submit(completion("x", 1), None).await, Err(SubmitError::Lost(_))));
    assert!(matches!(adapter.probe().await, Err(ProbeError::Unreachable(_))));
}

#[tokio::test]
async fn a_probe_reads_slots_and_context_with_the_engines_key() {
    let (stub, adapter) = engine(|c| {
        (c.parallel, c.ctx_size) = (3, 3000);
        c.api_keys = vec!["k".to_owned()];
    });
    assert_eq!(
        adapter.probe().await,
        Ok(Probed {
            slots_total: Some(3),
            ctx: Some(1000),
            // printf '{{ messages }}' | sha256sum
            chat_template_sha256: Some(
                "f24189f08c85a1eb19a737306c3a13e85462ee33d964f28108d64a2485fa2171".to_owned()
            ),
        })
    );
    assert_eq!(adapter.count_tokens("one two three", None).await, Ok(3));
    let stranger = LlamaCpp::new(&stub.url(), Some("wrong")).unwrap();
    assert!(matches!(stranger.probe().await, Err(ProbeError::Unreachable(_))));
    let error = stranger.submit(completion("x", 1), None).await.unwrap_err();
    assert!(matches!(&error, SubmitError::Lost(why) if why.contains("API key")), "{error}");
}

/// LCPP-013
#[tokio::test]
async fn a_chat_is_counted_as_its_answer_counts_it() {
    let (stub, adapter) = engine(|_| {});
    let tools = json!([{"type": "function", "function": {"name": "get", "parameters": {"type": "object"}}}]);
    let asked = || {
        chat(|request| {
            request.messages = user("one two three");
            (request.tools, request.max_tokens) = (Some(tools.clone()), Some(3));
        })
    };
    let EngineRequest::Chat(counted) = asked() else { unreachable!() };
    let count = adapter.count_chat(&counted, None).await.unwrap();
    let bodies: Vec<_> = stub.requests().into_iter().map(|seen| seen.body).collect();
    assert_eq!(
        bodies[0],
        json!({"messages": [{"role": "user", "content": "one two three"}], "tools": tools})
    );
    assert_eq!(bodies[1]["add_special"], true);
    let end = all(adapter.submit(asked(), None).await.unwrap()).await.3.unwrap();
    assert_eq!(count, end.tokens_in);
}

/// LCPP-012
#[tokio::test]
async fn every_call_of_a_task_tells_the_engine_which_trace_it_belongs_to() {
    let server = MockServer::start().await;
    let end = "data: {\"content\":\"\",\"tokens\":[],\"stop\":true,\"stop_type\":\"eos\"}\n\n";
    answer(&server, "/completion", ResponseTemplate::new(200).set_body_raw(end, "text/event-stream")).await;
    answer(&server, "/apply-template", ResponseTemplate::new(200).set_body_json(json!({"prompt": "p"})))
        .await;
    answer(&server, "/tokenize", ResponseTemplate::new(200).set_body_json(json!({"tokens": [1]}))).await;
    let adapter = LlamaCpp::new(&server.uri(), None).unwrap();
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let trace = TraceContext::parse(parent, Some("vendor=x")).unwrap();
    let EngineRequest::Completion(mut request) = completion("x", 9) else { unreachable!() };
    request.prompt = Prompt::Messages(user("hi"));
    let stream = adapter.submit(EngineRequest::Completion(request), Some(trace.clone())).await.unwrap();
    assert!(all(stream).await.3.is_ok());
    adapter.count_tokens("x", Some(&trace)).await.unwrap();
    assert!(all(adapter.submit(completion("x", 9), None).await.unwrap()).await.3.is_ok());
    let header = |request: &wiremock::Request, name: &str| {
        request.headers.get(name).map(|value| value.to_str().unwrap().to_owned())
    };
    let requests = server.received_requests().await.unwrap();
    let told: Vec<_> =
        requests.iter().map(|r| (r.url.path(), header(r, "traceparent"), header(r, "tracestate"))).collect();
    let traced = |path| (path, Some(parent.to_owned()), Some("vendor=x".to_owned()));
    let of_a_task = [traced("/apply-template"), traced("/completion"), traced("/tokenize")];
    assert_eq!(told[..3], of_a_task);
    assert_eq!(told[3..], [("/completion", None, None)]);
}

/// LCPP-005
#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (elsewhere, server) = (MockServer::start().await, MockServer::start().await);
    let away =
        ResponseTemplate::new(307).insert_header("location", format!("{}/completion", elsewhere.uri()));
    answer(&server, "/completion", away).await;
    let adapter = LlamaCpp::new(&server.uri(), Some("k")).unwrap();
    assert!(matches!(adapter.submit(completion("x", 1), None).await, Err(SubmitError::Lost(_))));
    assert!(elsewhere.received_requests().await.unwrap().is_empty());
}

#[tokio::test]
async fn the_engines_own_words_reach_the_client_of_a_bad_request() {
    let server = MockServer::start().await;
    let body = json!({"error": {
        "code": 400, "message": "Failed to initialize samplers: failed to parse grammar",
        "type": "invalid_request_error",
    }});
    answer(&server, "/v1/chat/completions", ResponseTemplate::new(400).set_body_json(body)).await;
    let adapter = LlamaCpp::new(&server.uri(), None).unwrap();
    let SubmitError::Refused(error) = adapter.submit(chat(|_| {}), None).await.unwrap_err() else {
        panic!("another replica would refuse it too")
    };
    assert_eq!(error.code, ErrorCode::InvalidParams);
    assert!(error.message.contains("failed to parse grammar"), "{}", error.message);
}

/// LCPP-007
#[tokio::test]
async fn a_request_the_engine_fails_at_is_refused_on_every_path_with_its_words() {
    let server = MockServer::start().await;
    let message = "Failed to parse messages: Unsupported tool call type: {\"type\":\"foo\"}";
    let body = json!({"error": {"code": 500, "message": message, "type": "server_error"}});
    for at in ["/v1/chat/completions", "/apply-template", "/completion"] {
        answer(&server, at, ResponseTemplate::new(500).set_body_json(&body)).await;
    }
    let adapter = LlamaCpp::new(&server.uri(), None).unwrap();
    let prompt = Prompt::Messages(user("hi"));
    let messages = CompletionRequest {
        prompt,
        sampling: Sampling::default(),
        cache_prompt: false,
        so_far: SoFar::Nothing,
    };
    for request in [chat(|_| {}), EngineRequest::Completion(messages), completion("x", 1)] {
        let SubmitError::Refused(error) = adapter.submit(request, None).await.unwrap_err() else {
            panic!("the engine lives")
        };
        assert_eq!((error.code, error.message.as_str()), (ErrorCode::InvalidParams, message));
    }
}

/// LCPP-008
#[tokio::test]
async fn a_loss_is_told_in_words_for_its_reader() {
    let server = MockServer::start().await;
    answer(&server, "/completion", ResponseTemplate::new(503).set_body_string("my secret")).await;
    let adapter = LlamaCpp::new(&server.uri(), None).unwrap();
    let lost = |why: &str| SubmitError::Lost(why.to_owned());
    let error = adapter.submit(completion("x", 1), None).await.unwrap_err();
    assert_eq!(error, lost("it answered /completion with 503"));
    let nobody = LlamaCpp::new("http://127.0.0.1:9", None).unwrap();
    let error = nobody.submit(completion("x", 1), None).await.unwrap_err();
    assert_eq!(error, lost("nobody answers at its address"));
}

async fn answer(server: &MockServer, at: &str, with: ResponseTemplate) {
    Mock::given(method("POST")).and(path(at)).respond_with(with).mount(server).await;
}

/// LCPP-011
#[tokio::test]
async fn an_answer_so_far_goes_behind_the_prompt_as_ids_or_as_text() {
    for (so_far, prompt) in [
        (SoFar::Nothing, json!("once upon")),
        (SoFar::Ids(vec![7, 8]), json!(["once upon", 7, 8])),
        (SoFar::Text(" a time".to_owned()), json!("once upon a time")),
    ] {
        let (stub, adapter) = engine(|c| c.faults.eos_after = Some(1));
        let request = CompletionRequest {
            prompt: Prompt::Text("once upon".to_owned()),
            sampling: Sampling::default(),
            cache_prompt: false,
            so_far,
        };
        let (_, _, _, end) =
            all(adapter.submit(EngineRequest::Completion(request), None).await.unwrap()).await;
        assert!(end.is_ok());
        assert_eq!(stub.requests()[0].body["prompt"], prompt);
    }
}
