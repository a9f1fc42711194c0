//! Tasks and their event streams.

use super::*;

/// STREAM-001, STREAM-002, STREAM-009
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_in_order_and_resumes_from_any_event() {
    let orchestrator = Orchestrator::start().await;
    let stub = stub();
    orchestrator.publish(&stub, "p", 1);
    let task = orchestrator.submit(json!({"max_tokens": 20})).await;
    let events = orchestrator.events(&task, None).await;
    let names: Vec<&str> = events.iter().map(|(_, name, _)| name.as_str()).collect();
    assert_eq!((names[0], names[names.len() - 1]), ("started", "end"), "{names:?}");
    let tokens: Vec<&Value> = events.iter().filter(|e| e.1 == "token").map(|e| &e.2).collect();
    assert_eq!(tokens.len(), events.len() - 2);
    assert!(tokens.iter().enumerate().all(|(i, token)| token["i"] == i as u64), "{tokens:?}");
    assert_eq!(events.last().unwrap().2["tokens_out"], 20);
    for (i, (id, ..)) in events.iter().enumerate() {
        assert_eq!(orchestrator.events(&task, Some(id)).await, events[i + 1..], "after {id}");
    }
    let metrics =
        orchestrator.http.get(orchestrator.url("/metrics")).send().await.unwrap().text().await.unwrap();
    let counted: u64 = metrics
        .lines()
        .filter(|line| line.starts_with("orchd_tokens_out_total"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum();
    assert_eq!(counted, 20, "{metrics}");
    orchestrator.stop().await;
}

/// ORCHD-ADMIT-001, ORCHD-GATE-001 (the founding documents' ORCHD-STREAM-UT-1101)
#[tokio::test(flavor = "multi_thread")]
async fn a_task_waits_for_a_replica_and_gets_nothing_before() {
    let orchestrator = Orchestrator::start().await;
    let stub = stub_with(|faults| faults.load = Duration::from_millis(400));
    orchestrator.publish(&stub, "p", 1);
    let task = orchestrator.submit(json!({})).await;
    let view = orchestrator.get(&format!("/v2/tasks/{task}")).await;
    assert_eq!(view["state"], "queued", "{view}");
    let events = orchestrator.events(&task, None).await;
    assert_eq!(events.last().unwrap().1, "end", "{events:?}");
    assert_eq!(orchestrator.get(&format!("/v2/tasks/{task}")).await["state"], "done");
    orchestrator.stop().await;
}

/// STREAM-003
#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_task_is_404_on_every_route() {
    let orchestrator = Orchestrator::start().await;
    for path in ["/v2/tasks/nope", "/v2/tasks/nope/events", "/v2/tasks/%2e%2e"] {
        let answer = orchestrator.http.get(orchestrator.url(path)).send().await.unwrap();
        assert_eq!(answer.status(), 404, "{path}");
        assert_eq!(answer.json::<Value>().await.unwrap()["error"]["code"], "NOT_FOUND");
    }
    assert_eq!(orchestrator.post("/v2/tasks/nope/cancel", json!({})).await.0, 404);
    orchestrator.stop().await;
}

/// ORCHD-ADMIT-003
#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_and_says_when_to_come_back() {
    let orchestrator = Orchestrator::start_with(|config| config.pools[0].queue.capacity = 2).await;
    for _ in 0..2 {
        orchestrator.submit(json!({})).await;
    }
    let body = json!({"model": "p", "prompt": "x"});
    let answer = orchestrator.http.post(orchestrator.url("/v2/tasks")).json(&body).send().await.unwrap();
    assert_eq!(answer.status(), 429);
    let retry_after: u64 = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!(retry_after >= 1);
    let error = answer.json::<Value>().await.unwrap()["error"].take();
    assert_eq!((&error["code"], &error["retriable"]), (&json!("QUEUE_FULL"), &json!(true)), "{error}");
    orchestrator.stop().await;
}

/// ORCHD-ADMIT-008
#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_that_cannot_fit_is_refused_at_admission_with_both_numbers() {
    let orchestrator = Orchestrator::start().await;
    let stub = stub();
    orchestrator.publish(&stub, "p", 1);
    orchestrator.until_ready("p", true).await;
    let prompt = "word ".repeat(5_000);
    let (status, answer) = orchestrator.post("/v2/tasks", json!({"model": "p", "prompt": prompt})).await;
    assert_eq!((status, &answer["error"]["code"]), (400, &json!("CONTEXT_OVERFLOW")), "{answer}");
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains("4096") && message.contains(" tokens"), "{message}");
    let messages = json!([{"role": "user", "content": prompt}]);
    let (status, _) =
        orchestrator.post("/v1/chat/completions", json!({"model": "p", "messages": messages})).await;
    assert_eq!(status, 400);
    // Many bytes that are few tokens pass.
    orchestrator.submit(json!({"prompt": "abcdefgh".repeat(600)})).await;
    orchestrator.stop().await;
}

/// ORCHD-ADMIT-004
#[tokio::test(flavor = "multi_thread")]
async fn the_same_id_runs_once_and_another_body_conflicts() {
    let orchestrator = Orchestrator::start().await;
    let stub = stub();
    orchestrator.publish(&stub, "p", 1);
    for _ in 0..3 {
        assert_eq!(orchestrator.submit(json!({"task_id": "mine"})).await, "mine");
    }
    assert_eq!(orchestrator.events("mine", None).await.last().unwrap().1, "end");
    let generations = stub.requests().iter().filter(|seen| seen.path == "/completion").count();
    assert_eq!(generations, 1);
    let (status, answer) =
        orchestrator.post("/v2/tasks", json!({"task_id": "mine", "model": "p", "prompt": "other"})).await;
    assert_eq!((status, &answer["error"]["code"]), (409, &json!("CONFLICT")), "{answer}");
    orchestrator.stop().await;
}

/// ORCHD-CANCEL-001
#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_task_sends_nothing_more_and_frees_its_slot() {
    let orchestrator = Orchestrator::start().await;
    let stub = stub_with(|faults| faults.token = Duration::from_millis(5));
    orchestrator.publish(&stub, "p", 1);
    let task = orchestrator.submit(json!({"max_tokens": 100_000})).await;
    until(async || orchestrator.get(&format!("/v2/tasks/{task}")).await["state"] == "running").await;
    let (status, view) = orchestrator.post(&format!("/v2/tasks/{task}/cancel"), json!({})).await;
    assert_eq!((status, &view["state"]), (202, &json!("cancelled")), "{view}");
    let events = orchestrator.events(&task, None).await;
    assert_eq!(events.last().unwrap().2["finish_reason"], "cancelled");
    assert_eq!(orchestrator.events(&task, None).await, events, "events came after the cancel");
    stub.wait_for(|stats| stats.busy == 0).await.unwrap();
    until(async || orchestrator.get("/v2/pools/p/health").await["slots_free"] == 1).await;
    orchestrator.stop().await;
}

/// ORCHD-STOP-001
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_even_with_an_endless_stream_open() {
    let orchestrator = Orchestrator::start().await;
    let stub = stub_with(|faults| faults.token = Duration::from_millis(5));
    orchestrator.publish(&stub, "p", 1);
    let task = orchestrator.submit(json!({"max_tokens": 1_000_000})).await;
    let url = orchestrator.url(&format!("/v2/tasks/{task}/events"));
    let reader = tokio::spawn(orchestrator.http.get(url).send());
    let mut answer = reader.await.unwrap().unwrap();
    answer.chunk().await.unwrap();
    let read = tokio::spawn(async move {
        let mut last = Vec::new();
        while let Ok(Some(bytes)) = answer.chunk().await {
            last = bytes.to_vec();
        }
        String::from_utf8(last).unwrap()
    });
    let took = orchestrator.stop().await;
    assert!(took < Duration::from_secs(14), "{took:?}");
    assert!(read.await.unwrap().contains("INTERRUPTED"));
}

/// STREAM-004
#[tokio::test]
async fn a_silent_stream_is_kept_alive_with_comments() {
    let orchd = Orchestrator::start().await;
    let task = orchd.submit(json!({})).await;
    for query in ["", "?verbose=true"] {
        keeps_alive(&orchd, &format!("/v2/tasks/{task}/events{query}")).await;
    }
}

/// What is told of its waiting may come first; then nothing more happens.
async fn keeps_alive(orchd: &Orchestrator, path: &str) {
    let silent = tokio::time::Instant::now();
    let mut stream = orchd.http.get(orchd.url(path)).send().await.unwrap();
    // From here the clock jumps to the next timer whenever nothing else is to be done.
    tokio::time::pause();
    while stream.chunk().await.unwrap().unwrap() != ": keepalive\n\n" {}
    assert!(silent.elapsed() >= Duration::from_secs(15), "{path}: {:?}", silent.elapsed());
    tokio::time::resume();
}

/// STREAM-002, STREAM-009: whatever stands in the header or in `after`, over a real connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_nobody_meant_to_send_is_one_of_the_task_or_a_400() {
    let orchestrator = Orchestrator::start().await;
    let stub = stub();
    orchestrator.publish(&stub, "p", 1);
    orchestrator.until_ready("p", true).await;
    let task = orchestrator.submit(json!({})).await;
    let ids: Vec<u64> =
        orchestrator.events(&task, None).await.iter().map(|(id, ..)| id.parse().unwrap()).collect();
    let addr = orchestrator.running.addr();
    let seeds =
        ["0", "5", "9", "10", "+1", "-1", "007", "1e1", "\u{663}", "18446744073709551616", " 3", "3\t", ""];
    let asked = tokio::task::spawn_blocking(move || {
        let corpus: Vec<Vec<u8>> = seeds.iter().map(|seed| seed.as_bytes().to_vec()).collect();
        mutate::campaign("last-event-id-http", &corpus, |input, _| {
            let (status, seen) = asked_after(addr, &task, "", input);
            // What ends a line is a header of its own, which says nothing of a position.
            if !input.iter().any(|byte| matches!(byte, b'\r' | b'\n')) {
                assert_eq!((status, seen), expected(input.trim_ascii(), &ids), "{:?}", input.escape_ascii());
            }
            let encoded: String = input.iter().map(|byte| format!("%{byte:02X}")).collect();
            let (status, seen) = asked_after(addr, &task, &format!("?after={encoded}"), b"");
            if !input.is_empty() {
                assert_eq!((status, seen), expected(input, &ids), "{:?}", input.escape_ascii());
            }
        })
    })
    .await
    .unwrap();
    assert!(asked > 20, "only {asked} inputs");
    let (status, _) = orchestrator.get_raw("/health").await;
    assert_eq!(status, 200);
    orchestrator.stop().await;
}

/// The status and the ids of what comes behind a position, given as bytes.
fn expected(position: &[u8], ids: &[u64]) -> (u16, Vec<u64>) {
    let digits = !position.is_empty() && position.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(position).unwrap_or_default();
    match text.parse::<u64>() {
        Ok(number) if digits && ids.last().is_some_and(|last| number <= *last) => {
            (200, ids.iter().copied().filter(|id| *id > number).collect())
        }
        _ if position.is_empty() => (200, ids.to_vec()),
        _ => (400, Vec::new()),
    }
}

/// Asks for a task's events with this header; the status and the ids of what came.
fn asked_after(addr: std::net::SocketAddr, task: &str, query: &str, header: &[u8]) -> (u16, Vec<u64>) {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
    let head = format!(
        "GET /v2/tasks/{task}/events{query} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nLast-Event-ID: "
    );
    stream.write_all(&[head.as_bytes(), header, b"\r\n\r\n"].concat()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
    let ids = answer.lines().filter_map(|line| line.strip_prefix("id: ")?.parse().ok()).collect();
    (status, ids)
}
