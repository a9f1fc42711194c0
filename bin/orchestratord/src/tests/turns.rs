//! Whose turn it is, as clients of the HTTP routes meet it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::future::join_all;

use super::*;

impl Orchestrator {
    /// How many tasks wait.
    async fn waiting(&self) -> u64 {
        self.get("/v2/tasks?state=queued&limit=100").await["tasks"].as_array().unwrap().len() as u64
    }

    async fn share_of_batch(&self) -> f64 {
        let text = self.http.get(self.url("/metrics")).send().await.unwrap().text().await.unwrap();
        let started = |priority: &str| -> f64 {
            let line = format!(r#"orchd_tasks_started_total{{pool_id="p",priority="{priority}"}}"#);
            text.lines().find_map(|have| have.strip_prefix(&line)?.trim().parse().ok()).unwrap_or(0.0)
        };
        started("batch") / (started("batch") + started("interactive"))
    }
}

/// ORCHD-FAIR-001: nobody was given a key, so any names its caller, by whichever header its SDK sends it.
#[tokio::test(flavor = "multi_thread")]
async fn keys_that_nobody_gave_out_take_turns_and_are_one_caller_in_either_header() {
    let orchestrator = Orchestrator::start().await;
    let stub = stub_with(|faults| faults.token = Duration::from_millis(10));
    orchestrator.publish(&stub, "p", 1);
    orchestrator.until_ready("p", true).await;
    let running = orchestrator.submit(json!({"max_tokens": 1_000_000})).await;
    stub.wait_for(|stats| stats.busy == 1).await.unwrap();

    let openai = ("/v1/chat/completions", "authorization", "Bearer ");
    let anthropic = ("/v1/messages", "x-api-key", "");
    let mut clients = Vec::new();
    for (n, ((path, header, scheme), key)) in
        [(openai, "sk-many"), (anthropic, "sk-many"), (openai, "sk-many"), (anthropic, "sk-one")]
            .into_iter()
            .enumerate()
    {
        let text = format!("question {n}");
        let body = json!({"model": "p", "max_tokens": 4, "messages": [{"role": "user", "content": text}]});
        let request = orchestrator.http.post(orchestrator.url(path)).header(header, format!("{scheme}{key}"));
        let request = request.json(&body);
        clients.push(tokio::spawn(async move { request.send().await.unwrap().status().as_u16() }));
        until(async || orchestrator.waiting().await == n as u64 + 1).await;
    }
    assert_eq!(orchestrator.post(&format!("/v2/tasks/{running}/cancel"), json!({})).await.0, 202);
    for client in clients {
        assert_eq!(client.await.unwrap(), 200);
    }
    let of = |seen: &stub_llama::Seen| {
        let body = seen.body.to_string();
        (0..4).find(|n| body.contains(&format!("question {n}")))
    };
    let asked = stub.requests();
    let completions = asked.iter().filter(|seen| seen.path.ends_with("/chat/completions"));
    assert_eq!(completions.filter_map(of).collect::<Vec<_>>(), [0, 3, 1, 2], "one key, one turn");
    orchestrator.stop().await;
}

/// ORCHD-FAIR-003: more interactive clients than the slot can serve, each with its next request at once.
#[tokio::test(flavor = "multi_thread")]
async fn batch_keeps_a_tenth_of_the_slots_while_interactive_clients_want_all_of_them() {
    const TASKS: usize = 8;
    /// Of 240: all clients have more to ask then.
    const ASKED_AT: u32 = 60;
    let orchestrator = Orchestrator::start().await;
    let stub = stub_with(|faults| faults.token = Duration::from_millis(1));
    orchestrator.publish(&stub, "p", 1);
    orchestrator.until_ready("p", true).await;
    // Until all have come.
    let running = orchestrator.submit(json!({"max_tokens": 1_000_000})).await;
    stub.wait_for(|stats| stats.busy == 1).await.unwrap();

    let (ended, share) = (AtomicU32::new(0), OnceLock::new());
    let client = async |n: usize, priority: &str| {
        for _ in 0..TASKS {
            let task = json!({"priority": priority, "session_id": format!("{priority}-{n}")});
            let id = orchestrator.submit(task).await;
            assert_eq!(orchestrator.events(&id, None).await.last().unwrap().1, "end");
            if ended.fetch_add(1, Ordering::Relaxed) + 1 == ASKED_AT {
                share.set(orchestrator.share_of_batch().await).unwrap();
            }
        }
    };
    let interactive = join_all((0..20).map(|n| client(n, "interactive")));
    let batch = join_all((0..10).map(|n| client(n, "batch")));
    let begin = async {
        until(async || orchestrator.waiting().await == 30).await;
        assert_eq!(orchestrator.post(&format!("/v2/tasks/{running}/cancel"), json!({})).await.0, 202);
    };
    tokio::join!(interactive, batch, begin);
    let share = share.get().unwrap();
    println!("batch had {:.1} % of the slots", share * 100.0);
    assert!((0.10..=0.25).contains(share), "batch had {share} of the slots");
    orchestrator.stop().await;
}
