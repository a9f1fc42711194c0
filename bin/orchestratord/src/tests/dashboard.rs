//! One stream with everything a dashboard needs.

use futures_util::StreamExt as _;
use tokio::sync::mpsc;

use super::*;

/// Follows `/v2/events` beside the test.
struct Dashboard {
    events: mpsc::UnboundedReceiver<(String, Value)>,
    seen: Vec<(String, Value)>,
    reader: tokio::task::JoinHandle<()>,
}

impl Dashboard {
    async fn open(orchestrator: &Orchestrator) -> Self {
        let answer = orchestrator.http.get(orchestrator.url("/v2/events")).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let (sender, events) = mpsc::unbounded_channel();
        let reader = tokio::spawn(async move {
            let (mut text, mut body) = (String::new(), answer.bytes_stream());
            while let Some(Ok(bytes)) = body.next().await {
                text.push_str(std::str::from_utf8(&bytes).unwrap());
                while let Some((frame, rest)) = text.split_once("\n\n") {
                    if let Some((event, data)) = frame.split_once("\ndata: ") {
                        let name = event.strip_prefix("event: ").unwrap().to_owned();
                        let _ = sender.send((name, serde_json::from_str(data).unwrap()));
                    }
                    text = rest.to_owned();
                }
            }
        });
        Self { events, seen: Vec::new(), reader }
    }

    /// The first event of a name that holds, from the beginning of the stream.
    async fn until(&mut self, name: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let is_it = |(event, data): &(String, Value)| event == name && holds(data);
        if let Some((_, data)) = self.seen.iter().find(|event| is_it(event)) {
            return data.clone();
        }
        let wait = async {
            loop {
                let event = self.events.recv().await.expect("the stream goes on");
                self.seen.push(event.clone());
                if is_it(&event) {
                    return event.1;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap_or_else(|_| panic!("no such {name}"))
    }
}

/// ORCHD-EVENTS-001
#[tokio::test(flavor = "multi_thread")]
async fn a_dashboard_is_told_what_there_is_and_then_what_changes() {
    let orchestrator = Orchestrator::start().await;
    let before = orchestrator.submit(json!({})).await;
    let mut dashboard = Dashboard::open(&orchestrator).await;
    dashboard.until("pool", |pool| pool["id"] == "p").await;
    dashboard.until("load", |load| load["waiting_interactive"] == 1 && load["ready"] == false).await;
    dashboard.until("task", |task| task["task_id"] == json!(before) && task["state"] == "queued").await;
    let synced = dashboard.until("synced", |_| true).await;
    assert_eq!(synced["tasks"], 1);

    let stub = stub_with(|faults| faults.token = Duration::from_millis(20));
    orchestrator.publish(&stub, "p", 1);
    dashboard.until("pool", |pool| pool["replicas"][0]["phase"] == "ready").await;
    dashboard.until("task", |task| task["task_id"] == json!(before) && task["state"] == "done").await;
    let task = orchestrator.submit(json!({"max_tokens": 40, "priority": "batch"})).await;
    let is = |state: &'static str| {
        let task = task.clone();
        move |seen: &Value| seen["task_id"] == json!(task) && seen["state"] == state
    };
    dashboard.until("task", is("running")).await;
    dashboard.until("load", |load| load["running"] == 1 && load["slots_free"] == 0).await;
    let done = dashboard.until("task", is("done")).await;
    assert_eq!(done["tokens_out"], 40, "{done}");
    let load = dashboard.until("load", |load| load["tasks"] == 2).await;
    assert_eq!((&load["tokens_out"], &load["running"]), (&json!(48), &json!(0)), "{load}");
    assert!(!done.to_string().contains("once upon"), "no prompt: {done}");

    let body = json!({"url": stub.url(), "pool_id": "ext", "replica_id": "w", "model": "m"});
    orchestrator.post("/v2/workers/register", body).await;
    dashboard.until("worker", |worker| worker["ready"] == true).await;
    dashboard.until("pool", |pool| pool["id"] == "ext").await;
    let gone = orchestrator.http.delete(orchestrator.url("/v2/workers/ext/w")).send().await.unwrap();
    assert_eq!(gone.status(), 200);
    dashboard.until("worker_gone", |gone| gone["pool_id"] == "ext" && gone["replica_id"] == "w").await;

    // A stop ends it: it must not hold up the process.
    assert!(orchestrator.stop().await < Duration::from_secs(8));
    dashboard.reader.await.unwrap();
}

/// ORCHD-EVENTS-001: what pool-managerd does is told as it goes on.
#[tokio::test(flavor = "multi_thread")]
async fn operations_are_told_as_they_go_on() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    let asked = Arc::new(AtomicUsize::new(0));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let operations = move || {
        let state = if asked.fetch_add(1, Ordering::Relaxed) == 0 { "running" } else { "succeeded" };
        let operation = json!({"id": "op1", "kind": "drain", "pool_id": "p", "state": state, "started_at": "x",
            "progress": {"replicas_done": 0, "replicas_total": 1, "doing": "x"}});
        std::future::ready(axum::Json(json!({"operations": [operation]})))
    };
    let router = axum::Router::new()
        .route("/v2/operations", axum::routing::get(operations))
        .route("/v2/pools", axum::routing::get(async || axum::Json(json!({"pools": []}))));
    let manager = tokio::spawn(async move { axum::serve(listener, router).await });
    let orchestrator = Orchestrator::start_with(|config| config.pool_managerd.url = Some(url)).await;
    let mut dashboard = Dashboard::open(&orchestrator).await;
    let first = dashboard.until("operation", |_| true).await;
    assert_eq!((&first["id"], &first["state"]), (&json!("op1"), &json!("running")));
    dashboard.until("operation", |operation| operation["state"] == "succeeded").await;
    orchestrator.stop().await;
    manager.abort();
}

/// ORCHD-EVENTS-001
#[test]
fn the_stream_of_everything_needs_the_control_scope() {
    use wire::operations::{self, Access, Daemon};
    let operation = operations::of(Daemon::Orchestratord).find(|op| op.path == "/v2/events").unwrap();
    assert_eq!(operation.access, Access::Control);
}
