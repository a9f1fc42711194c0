//! What engines write, over HTTP.

use std::time::Duration;

use futures_util::StreamExt;
use rustix::process::Signal;
use wire::pool::LogLine;
use wire::{ErrorCode, ErrorEnvelope, Phase};

use crate::harness::{DEADLINE, Manager, setup, signal};

async fn read(manager: &Manager, query: &str, accept: &str) -> reqwest::Response {
    let request = manager.request("GET", &format!("/v2/pools/p/logs{query}")).header("accept", accept);
    request.bearer_auth(manager.running.token()).send().await.unwrap()
}

/// Reads until `wanted` has come.
async fn until(answer: reqwest::Response, wanted: impl Fn(&str) -> bool) -> String {
    let mut text = String::new();
    let mut pieces = answer.bytes_stream();
    let reading = async {
        while !wanted(&text) {
            text.push_str(&String::from_utf8_lossy(&pieces.next().await.expect("it goes on").unwrap()));
        }
    };
    tokio::time::timeout(DEADLINE, reading).await.expect("it came in time");
    text
}

/// POOLD-LOGS-001
#[tokio::test]
async fn the_last_lines_are_text_or_events_and_name_their_replica_where_there_are_several() {
    let mut setup = setup().with_faults(&[("SAY", "the first words")]);
    setup.pool.replicas = 2;
    let manager = setup.start().await;
    manager.until_all(Phase::Ready).await;
    let answer = read(&manager, "", "*/*").await;
    assert!(answer.headers()["content-type"].to_str().unwrap().starts_with("text/plain"));
    let text = answer.text().await.unwrap();
    assert!(text.contains("r0 | the first words\n") && text.contains("r1 | the first words\n"), "{text}");
    let one = read(&manager, "?replica=r1&tail=1", "*/*").await.text().await.unwrap();
    assert_eq!(one.lines().count(), 1, "{one}");
    assert!(!one.contains(" | "), "{one}");

    let answer = read(&manager, "?replica=r0", "text/event-stream").await;
    assert!(answer.headers()["content-type"].to_str().unwrap().starts_with("text/event-stream"));
    let events = answer.text().await.unwrap();
    let first = events.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
    let line: LogLine = serde_json::from_str(first).unwrap();
    assert_eq!((line.replica_id.as_str(), line.line.as_str()), ("r0", "the first words"));
    manager.running.shutdown().await;
}

/// POOLD-LOGS-001
#[tokio::test]
async fn a_log_that_is_followed_goes_on_over_the_lives_of_its_engine_and_ends_with_the_manager() {
    let setup = setup().with_faults(&[("SAY", "a life begins")]);
    let manager = setup.start().await;
    let first = manager.ready().await;
    let events = read(&manager, "?follow=true", "*/*").await;
    assert!(events.headers()["content-type"].to_str().unwrap().starts_with("text/event-stream"));
    let text = read(&manager, "?follow=true", "text/plain").await;
    signal(first.pid.unwrap(), Signal::KILL);
    let both = |text: &str| text.matches("a life begins").count() == 2;
    assert!(until(events, both).await.contains("event: log\ndata: {"));
    until(text, both).await;

    let followed = read(&manager, "?follow=true&tail=0", "text/plain").await;
    let ended = tokio::spawn(followed.text());
    tokio::time::timeout(Duration::from_secs(20), manager.running.shutdown()).await.unwrap();
    ended.await.unwrap().unwrap();
}

/// POOLD-LOGS-001
#[tokio::test]
async fn a_wrong_question_is_told_what_can_be_asked() {
    let setup = setup();
    let manager = setup.start().await;
    for (query, status, code) in [
        ("?tail=many", 400, ErrorCode::InvalidParams),
        ("?lines=3", 400, ErrorCode::InvalidParams),
        ("?replica=r7", 404, ErrorCode::NotFound),
    ] {
        let answer = read(&manager, query, "*/*").await;
        assert_eq!(answer.status(), status, "{query}");
        let error = answer.json::<ErrorEnvelope>().await.unwrap().error;
        assert_eq!(error.code, code, "{query}");
        assert!(error.hint.is_some(), "{query}");
    }
    let mut readers = Vec::new();
    let refused = loop {
        let answer = read(&manager, "?follow=true", "*/*").await;
        if answer.status() != 200 {
            break answer;
        }
        readers.push(answer);
        assert!(readers.len() < 100, "readers are not bounded");
    };
    assert_eq!(refused.status(), 429);
    assert_eq!(read(&manager, "", "*/*").await.status(), 429);
    readers.clear();
    assert_eq!(manager.replica().await.id.as_str(), "r0", "everything else is answered meanwhile");
    manager.running.shutdown().await;
}
