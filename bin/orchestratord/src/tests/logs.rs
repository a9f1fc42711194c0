//! Logs of engines, through orchestratord.

use axum::extract::Request;
use axum::response::IntoResponse;
use wire::operations::{self, Access, Daemon};

use super::*;

/// Answers as pool-managerd does, and says what it was asked.
async fn asked(request: Request) -> impl IntoResponse {
    let header = |name: &str| request.headers().get(name).map_or("", |v| v.to_str().unwrap()).to_owned();
    let text = format!("{} {} {}\n", request.uri(), header("authorization"), header("accept"));
    ([("content-type", "text/event-stream; charset=utf-8")], text)
}

/// ORCHD-LOGS-001
#[tokio::test(flavor = "multi_thread")]
async fn logs_are_handed_through_with_the_question_and_the_form_that_was_asked_for() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let manager =
        tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(asked)).await });
    let orchestrator = Orchestrator::start_with(|config| config.pool_managerd.url = Some(url)).await;
    let request = orchestrator.http.get(orchestrator.url("/v2/pools/p/logs?tail=3&follow=true"));
    let answer = request.header("accept", "text/event-stream").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "text/event-stream; charset=utf-8");
    let text = answer.text().await.unwrap();
    assert_eq!(text, "/v2/pools/p/logs?tail=3&follow=true Bearer unused text/event-stream\n");
    orchestrator.stop().await;
    manager.abort();
}

/// ORCHD-LOGS-001
#[tokio::test(flavor = "multi_thread")]
async fn logs_need_the_control_scope_and_say_so_when_nobody_can_answer() {
    let logs = |op: &&operations::Operation| op.path == "/v2/pools/{id}/logs";
    let operation = operations::of(Daemon::Orchestratord).find(logs).unwrap();
    assert_eq!(operation.access, Access::Control);
    let orchestrator = Orchestrator::start().await;
    let (status, answer) = orchestrator.get_raw("/v2/pools/p/logs").await;
    assert_eq!((status, &answer["error"]["code"]), (503, &json!("POOL_UNREADY")), "{answer}");
    orchestrator.stop().await;
}
