//! Many clients at once: what is refused is refused at once, what is accepted ends, and callers do
//! not get in each other's way.

use futures_util::stream::{self, StreamExt};

use super::*;

/// More than the connections of one client at a time would only measure this process.
const AT_ONCE: usize = 160;

fn task(id: Option<&str>, prompt: &str) -> Value {
    let mut body = json!({"model": "p", "prompt": prompt, "max_tokens": 8});
    if let Some(id) = id {
        body["task_id"] = json!(id);
    }
    body
}

impl Orchestrator {
    async fn metric(&self, line: &str) -> Option<f64> {
        let text = self.http.get(self.url("/metrics")).send().await.unwrap().text().await.unwrap();
        text.lines().find_map(|have| have.strip_prefix(line)?.trim().parse().ok())
    }
}

struct Refused {
    took: Duration,
    retry_after: u64,
    code: Value,
}

/// ORCHD-ADMIT-003, ORCHD-ETA-001: ten times what the queue holds, at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_refused_at_once_and_everything_accepted_ends_about_when_it_was_told() {
    let orchestrator = Orchestrator::start_with(|config| config.pools[0].queue.capacity = 16).await;
    let stub = stub_with(|faults| faults.token = Duration::from_millis(20));
    orchestrator.publish(&stub, "p", 1);
    orchestrator.until_ready("p", true).await;
    for _ in 0..4 {
        let measured = orchestrator.submit(json!({})).await;
        orchestrator.events(&measured, None).await;
    }
    let submit = async |n: usize| {
        let began = Instant::now();
        let request = orchestrator.http.post(orchestrator.url("/v2/tasks")).json(&task(None, &n.to_string()));
        let answer = request.send().await.unwrap();
        let took = began.elapsed();
        let retry_after = answer.headers().get("retry-after").and_then(|v| v.to_str().ok()?.parse().ok());
        let (status, body) = (answer.status().as_u16(), answer.json::<Value>().await.unwrap());
        match status {
            202 => Ok(body),
            429 => {
                Err(Refused { took, retry_after: retry_after.unwrap(), code: body["error"]["code"].clone() })
            }
            other => panic!("{other}: {body}"),
        }
    };
    let answers: Vec<_> = stream::iter(0..160).map(submit).buffer_unordered(AT_ONCE).collect().await;
    let (accepted, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert!((16..=40).contains(&accepted.len()), "{} were accepted", accepted.len());
    let mut took = Vec::new();
    for refused in refused.into_iter().filter_map(Result::err) {
        assert_eq!(refused.code, "QUEUE_FULL");
        assert!((1..=120).contains(&refused.retry_after), "{}", refused.retry_after);
        took.push(refused.took);
    }
    took.sort();
    println!(
        "refused: {} of 160, p50 {:?}, p99 {:?}",
        took.len(),
        took[took.len() / 2],
        took[took.len() * 99 / 100]
    );
    let mut off = Vec::new();
    for answer in accepted.into_iter().flatten() {
        let id = answer["task_id"].as_str().unwrap();
        let events = orchestrator.events(id, None).await;
        assert_eq!(events.last().unwrap().1, "end", "{events:?}");
        let told = answer["predicted_start_ms"].as_f64().unwrap();
        let waited = orchestrator.get(&format!("/v2/tasks/{id}")).await["queue_ms"].as_f64().unwrap();
        off.push((told.max(200.0) / waited.max(200.0)).ln().abs());
    }
    off.sort_by(f64::total_cmp);
    println!("told against real wait: p50 {:.2} times off", off[off.len() / 2].exp());
    assert!(off[off.len() / 2].exp() <= 2.0, "the median wait was told wrong by more than twice");
    orchestrator.stop().await;
}

/// ORCHD-ADMIT-004
#[tokio::test(flavor = "multi_thread")]
async fn the_same_id_a_thousand_times_at_once_is_one_execution() {
    let orchestrator = Orchestrator::start().await;
    let stub = stub();
    orchestrator.publish(&stub, "p", 1);
    orchestrator.until_ready("p", true).await;
    let submit = async |_| orchestrator.post("/v2/tasks", task(Some("mine"), "the same")).await;
    let answers: Vec<_> = stream::iter(0..1_000).map(submit).buffer_unordered(AT_ONCE).collect().await;
    for (status, answer) in &answers {
        assert_eq!((*status, &answer["task_id"]), (202, &json!("mine")), "{answer}");
    }
    assert_eq!(orchestrator.events("mine", None).await.last().unwrap().1, "end");
    let started =
        orchestrator.metric(r#"orchd_tasks_started_total{pool_id="p",priority="interactive"}"#).await;
    assert_eq!(started, Some(1.0));
    let (status, other) = orchestrator.post("/v2/tasks", task(Some("mine"), "another")).await;
    assert_eq!((status, &other["error"]["code"]), (409, &json!("CONFLICT")), "{other}");
    orchestrator.stop().await;
}

/// ORCHD-LIMIT-001, ORCHD-LIMIT-003, ORCHD-FAIR-001
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_over_its_limit_is_refused_and_others_are_not() {
    let orchestrator =
        Orchestrator::start_with(|config| config.limits.default.requests_per_minute = Some(2)).await;
    let submit = async |header: (&str, &str), id: &str| {
        let request = orchestrator.http.post(orchestrator.url("/v2/tasks")).json(&task(Some(id), "x"));
        let answer = request.header(header.0, header.1).send().await.unwrap();
        let retry_after =
            answer.headers().get("retry-after").and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
        (answer.status().as_u16(), retry_after, answer.json::<Value>().await.unwrap())
    };
    let (bearer, api_key) = (("authorization", "Bearer sk-one"), ("x-api-key", "sk-one"));
    assert_eq!(submit(bearer, "a").await.0, 202);
    assert_eq!(submit(bearer, "a").await.0, 202, "a repeated submission is not charged");
    assert_eq!(submit(api_key, "b").await.0, 202);
    let (status, retry_after, body) = submit(api_key, "c").await;
    assert_eq!((status, &body["error"]["code"]), (429, &json!("RATE_LIMITED")), "{body}");
    assert!(retry_after.is_some_and(|wait| (25..=30).contains(&wait)), "{retry_after:?}");
    assert_eq!(body["error"]["message"], "the limit of 2 requests per minute is reached");
    assert_eq!(submit(("x-api-key", "sk-two"), "d").await.0, 202);
    orchestrator.stop().await;
}

/// ORCHD-SESSION-001, ORCHD-SESSION-002
#[tokio::test(flavor = "multi_thread")]
async fn a_session_shows_what_it_used_and_ends_when_it_is_spent() {
    let orchestrator = Orchestrator::start_with(|config| config.sessions.turns = Some(2)).await;
    let stub = stub();
    orchestrator.publish(&stub, "p", 1);
    orchestrator.until_ready("p", true).await;
    let in_session = |_| orchestrator.submit(json!({"session_id": "s1"}));
    for n in 0..2 {
        orchestrator.events(&in_session(n).await, None).await;
    }
    let session = orchestrator.get("/v2/sessions/s1").await;
    assert_eq!((&session["turns"], &session["tokens_out"]), (&json!(2), &json!(16)), "{session}");
    assert_eq!(session["budgets"], json!({"turns_remaining": 0, "tokens_remaining": null}));
    assert_eq!((&session["pool_id"], &session["replica_id"]), (&json!("p"), &json!("r0")), "{session}");
    assert!(session["ttl_ms_remaining"].as_u64().is_some_and(|ttl| (1..=600_000).contains(&ttl)));
    let third = json!({"model": "p", "prompt": "x", "session_id": "s1"});
    let (status, refused) = orchestrator.post("/v2/tasks", third.clone()).await;
    assert_eq!((status, &refused["error"]["retriable"]), (429, &json!(false)), "{refused}");
    assert_eq!(refused["error"]["message"], "session s1 has used its 2 tasks");
    let forgotten = orchestrator.http.delete(orchestrator.url("/v2/sessions/s1")).send().await.unwrap();
    assert_eq!(forgotten.status(), 200);
    assert_eq!(orchestrator.get_raw("/v2/sessions/s1").await.0, 404);
    assert_eq!(orchestrator.post("/v2/tasks", third).await.0, 202);
    orchestrator.stop().await;
}
