//! What a client hears whose engine is lost before it has said anything.

use super::*;

/// ORCHD-GATE-002, ORCHD-GATE-004
#[tokio::test(flavor = "multi_thread")]
async fn retries_are_as_the_configuration_says_and_a_spent_budget_is_told_over_v1() {
    let retry = wire::config::RetryConfig { per_task: 1, percent: 0, at_least: 0, window_ms: 600_000 };
    let orchestrator = Orchestrator::start_with(|config| config.limits.retry = retry).await;
    let dying = stub_with(|faults| faults.drop_after = Some(0));
    orchestrator.publish(&dying, "p", 1);
    orchestrator.until_ready("p", true).await;
    let body = json!({"model": "p", "messages": [{"role": "user", "content": "hello"}]});
    let asked = || dying.requests().iter().filter(|seen| seen.path == "/v1/chat/completions").count();
    let mut answers = Vec::new();
    for wanted in [2, 3] {
        let request = orchestrator.http.post(orchestrator.url("/v1/chat/completions")).json(&body);
        let answer = request.send().await.unwrap();
        let wait = answer.headers().get("retry-after").map(|wait| wait.to_str().unwrap().to_owned());
        let status = answer.status().as_u16();
        let error: Value = answer.json::<Value>().await.unwrap()["error"].take();
        assert_eq!((status, &error["code"]), (500, &json!("ENGINE_LOST")), "{error}");
        assert_eq!(asked(), wanted, "the first is tried once more, the second not");
        answers.push((wait, error["hint"].as_str().unwrap_or_default().to_owned()));
    }
    let (wait, hint) = &answers[1];
    assert!(
        answers[0].0.is_none() && hint.contains("budget") && hint.contains("limits.retry"),
        "{answers:?}"
    );
    let wait: u64 = wait.as_ref().unwrap().parse().unwrap();
    assert!((1..=601).contains(&wait), "{wait}");
    orchestrator.stop().await;
}

/// ORCHD-GATE-002
#[tokio::test(flavor = "multi_thread")]
async fn every_door_for_text_tells_a_lost_engine_before_its_answer_as_the_contract_says() {
    let retry = wire::config::RetryConfig { per_task: 0, ..Default::default() };
    let orchestrator = Orchestrator::start_with(|config| config.limits.retry = retry).await;
    let messages = json!([{"role": "user", "content": "hello"}]);
    let doors = [
        ("/v1/chat/completions", json!({"model": "p", "messages": messages})),
        ("/v1/completions", json!({"model": "p", "prompt": "hello"})),
        ("/v1/responses", json!({"model": "p", "input": "hello"})),
        ("/v1/messages", json!({"model": "p", "max_tokens": 8, "messages": messages})),
    ];
    for (generation, (door, body)) in (1..).zip(doors) {
        // Of a life of its own, which nobody distrusts yet.
        let dying = stub_with(|faults| faults.drop_after = Some(0));
        orchestrator.until_up("r0", generation, &dying).await;
        let (status, answer) = orchestrator.post(door, body).await;
        let told = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(status == 500 && told.starts_with("the engine was lost: "), "{door}: {status} {answer}");
        assert!(dying.requests().iter().any(|seen| seen.path.contains("completion")), "{door} asked it");
    }
    orchestrator.stop().await;
}
