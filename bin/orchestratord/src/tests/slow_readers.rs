//! Readers that are behind when nobody keeps their task any more.

use super::*;

use dispatch::{Owner, Task, TaskFilter};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use wire::TaskId;

/// More than a socket's buffers hold, several times over.
const TOKENS: usize = 3_000;

/// Of ended tasks one is kept; so much is held for slow readers of others.
async fn house(keep_unread_bytes: usize) -> (Orchestrator, RunningStub) {
    let keep = |config: &mut Config| {
        config.journal.keep_tasks = 1;
        config.journal.keep_unread_bytes = keep_unread_bytes;
    };
    // Nobody is let go because the machine is slow.
    let orchestrator =
        Orchestrator::start_limited(keep, |limits| limits.unread = Duration::from_hours(1)).await;
    let stub = stub();
    orchestrator.publish(&stub, "p", 1);
    orchestrator.until_ready("p", true).await;
    (orchestrator, stub)
}

/// A client that asks and reads nothing. Its answer is not cut into chunks.
async fn ask(orchestrator: &Orchestrator, request: &str, body: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(2_048).unwrap();
    let mut stream = socket.connect(orchestrator.running.addr()).await.unwrap();
    let length = body.len();
    let head = format!(
        "{request} HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    stream
}

/// Everything that comes now, without the head.
async fn read(mut stream: TcpStream) -> String {
    let mut text = String::new();
    let reading = tokio::time::timeout(Duration::from_secs(60), stream.read_to_string(&mut text));
    reading.await.expect("the answer has an end").unwrap();
    text.split_once("\r\n\r\n").unwrap().1.to_owned()
}

fn known(orchestrator: &Orchestrator, id: &TaskId) -> Task {
    orchestrator.running.state().dispatch.task(id, &Owner::Control).unwrap()
}

/// The task that came last.
fn newest(orchestrator: &Orchestrator) -> Option<TaskId> {
    let filter = TaskFilter { owner: Owner::Control, state: None, limit: 1, before: None };
    orchestrator.running.state().dispatch.tasks(&filter).tasks.pop().map(|view| view.task_id)
}

/// Lets another task end, so that nobody keeps those before it.
async fn another_ends(orchestrator: &Orchestrator) {
    let another = orchestrator.submit(json!({})).await;
    let events = orchestrator.events(&another, None).await;
    assert_eq!(
        (events.len(), events.last().unwrap().1.as_str()),
        (10, "end"),
        "a task is as ever: {events:?}"
    );
}

/// A reader has begun and reads nothing while its task runs to its end and is let go of. Its other reader
/// reads it all meanwhile: what that saw, and the slow one.
async fn slow(orchestrator: &Orchestrator) -> (Task, Vec<(String, String, Value)>, TcpStream) {
    let body = json!({"max_tokens": TOKENS, "detach_grace_ms": 3_600_000, "transcript": true});
    let id = orchestrator.submit(body).await;
    let task = known(orchestrator, &TaskId::try_new(id.as_str()).unwrap());
    let reader = ask(orchestrator, &format!("GET /v2/tasks/{id}/events"), "").await;
    until(async || task.log().readers().borrow().attached > 0).await;
    let whole = orchestrator.events(&id, None).await;
    assert_eq!(whole.len(), TOKENS + 2);
    another_ends(orchestrator).await;
    until(async || orchestrator.get_raw(&format!("/v2/tasks/{id}")).await.0 == 404).await;
    (task, whole, reader)
}

/// STREAM-015, STREAM-005, STREAM-002
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_is_too_far_behind_is_told_and_nobody_else_notices() {
    let (orchestrator, _stub) = house(100_000).await;
    let (task, whole, reader) = slow(&orchestrator).await;
    until(async || task.log().is_let_go()).await;
    let mut seen = frames(&read(reader).await);
    let (id, event, error) = seen.pop().unwrap();
    assert_eq!((id.as_str(), event.as_str(), &error["code"]), ("", "error", &json!("READER_TOO_SLOW")));
    assert!(seen.len() < whole.len() / 2, "{} of {}: it was behind", seen.len(), whole.len());
    assert_eq!(seen, whole[..seen.len()], "what it has is the beginning of what there was");
    // Behind the first event.
    assert_eq!(error["tokens_sent"], seen.len() - 1);
    let missed = whole.len() - seen.len();
    let message = error["message"].as_str().unwrap();
    assert!(message.contains(&format!("{missed} events (")) && message.contains("read faster"), "{message}");
    assert_eq!(error["retriable"], false, "the task is not there any more");
    let hint = error["hint"].as_str().unwrap();
    let artifact = hint.strip_prefix("the whole answer is GET ").unwrap();
    assert_eq!(orchestrator.get_raw(artifact).await.0, 200);
    let metrics = &orchestrator.running.state().metrics;
    assert_eq!((metrics.slow_readers.get(), metrics.evictions.get()), (1, 0));
    until(async || metrics.streams_open.get() == 0).await;
    another_ends(&orchestrator).await;
    orchestrator.stop().await;
}

/// STREAM-015
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_of_a_task_that_is_not_kept_reads_to_its_end_while_there_is_room() {
    let (orchestrator, _stub) = house(100_000_000).await;
    let (task, whole, reader) = slow(&orchestrator).await;
    assert!(!task.log().is_let_go());
    assert_eq!(frames(&read(reader).await), whole);
    assert_eq!(orchestrator.running.state().metrics.slow_readers.get(), 0);
    orchestrator.stop().await;
}

/// STREAM-015, STREAM-007, ORCHD-MESSAGES-002
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_client_of_v1_is_told_in_the_shape_of_its_api() {
    let (orchestrator, _stub) = house(100_000).await;
    let messages = json!([{"role": "user", "content": "hello"}]);
    for (route, ask_for, error) in [
        ("/v1/chat/completions", json!({"messages": messages, "max_tokens": 1_500}), "/error/code"),
        ("/v1/completions", json!({"prompt": "hello", "max_tokens": 1_500}), "/error/code"),
        ("/v1/messages", json!({"messages": messages, "max_tokens": 1_500}), "/error/code"),
        ("/v1/responses", json!({"input": "hello", "max_output_tokens": 1_500}), "/response/error/code"),
    ] {
        let mut body = json!({"model": "p", "stream": true});
        body.as_object_mut().unwrap().extend(ask_for.as_object().unwrap().clone());
        let before = newest(&orchestrator);
        let client = ask(&orchestrator, &format!("POST {route}"), &body.to_string()).await;
        until(async || newest(&orchestrator) != before).await;
        let task = known(&orchestrator, &newest(&orchestrator).unwrap());
        let ended = tokio::time::timeout(Duration::from_secs(300), task.log().settled()).await;
        assert!(ended.is_ok(), "{route}: nobody reads, and it ends");
        another_ends(&orchestrator).await;
        until(async || task.log().is_let_go()).await;
        let text = read(client).await;
        let last = text.trim_end().lines().last().unwrap().strip_prefix("data: ").unwrap();
        let last: Value = serde_json::from_str(last).unwrap();
        assert_eq!(last.pointer(error), Some(&json!("READER_TOO_SLOW")), "{route}: {last}");
        assert!(last.to_string().contains("read faster"), "{route}: {last}");
    }
    assert_eq!(orchestrator.running.state().metrics.slow_readers.get(), 4);
    orchestrator.stop().await;
}

/// STREAM-015, ORCHD-ONCE-002: a result that is gone is never an answer without one.
#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_is_let_go_of_is_missed_and_not_left_out() {
    let orchestrator =
        Orchestrator::start_with(|config| config.pools[0].kind = wire::config::PoolKind::Embedding).await;
    let stub = stub();
    orchestrator.publish(&stub, "p", 1);
    let body = json!({"model": "p", "workload": "embedding", "inputs": ["once"]});
    let (status, accepted) = orchestrator.post("/v2/tasks", body).await;
    assert_eq!(status, 202, "{accepted}");
    let id = accepted["task_id"].as_str().unwrap();
    let events = orchestrator.events(id, None).await;
    assert!(events.last().unwrap().2["result"].is_array(), "{events:?}");
    known(&orchestrator, &TaskId::try_new(id).unwrap()).log().held().let_go();
    assert_eq!(orchestrator.get_raw(&format!("/v2/tasks/{id}")).await.0, 404);
    let events = orchestrator.events(id, None).await;
    assert_eq!((events.len(), &events[0].2["code"]), (1, &json!("READER_TOO_SLOW")));
    orchestrator.stop().await;
}
