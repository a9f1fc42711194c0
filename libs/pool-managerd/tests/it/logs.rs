//! What engines write, over HTTP.

use std::time::Duration;

use futures_util::StreamExt;
use rustix::process::Signal;
use wire::config::OnExit;
use wire::pool::LogLine;
use wire::{ErrorCode, ErrorEnvelope, OperationState, Phase};

use crate::harness::{DEADLINE, Generation, Manager, Setup, error, setup, signal, within};

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
async fn the_logs_of_an_engine_that_was_replaced_and_of_one_that_was_not_taken_can_be_read() {
    let setup = setup().with_faults(&[("SAY", "of the first")]);
    let manager = setup.start().await;
    manager.ready().await;
    let text = async |query: &str| read(&manager, query, "*/*").await.text().await.unwrap();
    assert_eq!(text("?engine=previous").await + &text("?engine=candidate").await, "", "there were none");
    let reload = async |says: &str, fault: &str| {
        setup.preparer.faults(&[("SAY", says), (fault, "3")]);
        let reload = manager.begin("reload", "").await;
        manager.ended(&reload).await.state
    };
    assert_eq!(reload("of the second", "TOKEN_MS").await, OperationState::Succeeded);
    assert_eq!(reload("of the third", "EXIT_AT_START").await, OperationState::RolledBack);
    for (query, says) in [
        ("", "of the second"),
        ("?engine=current", "of the second"),
        ("?engine=previous", "of the first"),
        ("?engine=candidate", "of the third"),
    ] {
        let text = text(query).await;
        assert!(
            text.starts_with(&format!("{says}\n")) && text.matches("of the").count() == 1,
            "{query}: {text}"
        );
    }
    manager.running.shutdown().await;
}

/// POOLD-LOGS-001
#[tokio::test]
async fn a_wrong_question_is_told_what_can_be_asked() {
    let setup = setup();
    let manager = setup.start().await;
    for (query, status, code) in [
        ("?tail=many", 400, ErrorCode::InvalidParams),
        ("?lines=3", 400, ErrorCode::InvalidParams),
        ("?engine=old", 400, ErrorCode::InvalidParams),
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

const CAP_BYTES: u64 = 64 * 1024;

/// With logs that are looked at often and may not get long.
fn capped(faults: &[(&str, &str)]) -> Setup {
    let mut setup = setup().with_faults(faults);
    (setup.timings.log_period, setup.timings.log_cap_bytes) = (Duration::from_millis(20), CAP_BYTES);
    // A start that was given up would set the log aside, too.
    setup.timings.startup_base = Duration::from_mins(10);
    setup
}

fn length(setup: &Setup, log: &str) -> u64 {
    std::fs::metadata(setup.runtime().join("run").join(log)).map_or(0, |meta| meta.len())
}

async fn reloaded(manager: &Manager) {
    let reload = manager.begin("reload", "").await;
    let ended = manager.ended(&reload).await;
    assert_eq!(ended.state, OperationState::Succeeded, "{ended:#?}");
}

/// POOLD-LOGS-002
#[tokio::test]
async fn a_log_is_cut_while_its_engine_still_starts_alone_or_beside_another() {
    const LOADS_FOR_EVER: &[(&str, &str)] = &[("SPEW_MS", "1"), ("LOAD_MS", "600000")];
    let setup = capped(LOADS_FOR_EVER);
    let manager = setup.start().await;
    let alone = || length(&setup, "llamacpp-p.r0.log.1") > CAP_BYTES;
    within(DEADLINE, "cut while it starts", alone).await;
    assert_eq!(manager.replica().await.phase, Phase::Starting);
    manager.running.shutdown().await;

    let setup = capped(&[]);
    let manager = setup.start().await;
    manager.ready().await;
    setup.preparer.faults(LOADS_FOR_EVER);
    manager.begin("reload", "").await;
    let beside = || length(&setup, "llamacpp-p.r0.next.log.1") > CAP_BYTES;
    within(DEADLINE, "cut while it is tried beside the one that serves", beside).await;
    assert_eq!(manager.replica().await.phase, Phase::Ready);
    manager.running.shutdown().await;
}

/// POOLD-LOGS-002
#[tokio::test]
async fn the_log_of_an_engine_whose_place_is_taken_is_cut_while_it_finishes_what_it_has() {
    let setup = capped(&[("SPEW_MS", "1"), ("TOKEN_MS", "100")]);
    let manager = setup.start().await;
    let old = manager.ready().await;
    let generation = Generation::begin(&old, 500).await;
    setup.preparer.faults(&[]);
    reloaded(&manager).await;
    let longest = std::cell::Cell::new(0);
    let cut = || {
        let now = length(&setup, "llamacpp-p.r0.log.1");
        let before = longest.replace(longest.get().max(now));
        before > CAP_BYTES && now < before
    };
    within(DEADLINE, "cut where it was set aside", cut).await;
    assert!(generation.runs(), "its engine had ended");
    assert_eq!(length(&setup, "llamacpp-p.r0.log.1.1"), 0, "nothing is kept of what was set aside");
    manager.running.shutdown().await;
}

/// POOLD-LOGS-002
#[tokio::test]
async fn who_follows_the_log_misses_no_line_of_an_engine_until_another_takes_its_place() {
    let setup = setup().with_faults(&[("SPEW_MS", "3"), ("TOKEN_MS", "10")]);
    let manager = setup.start().await;
    let old = manager.ready().await;
    let generation = Generation::begin(&old, 300).await;
    let followed = read(&manager, "?follow=true&tail=100000", "text/plain").await;
    let reading = tokio::spawn(until(followed, |text| text.contains("of the new one")));
    setup.preparer.faults(&[("SAY", "of the new one")]);
    reloaded(&manager).await;
    assert!(generation.was_whole().await);
    let text = reading.await.unwrap();
    let lead = format!("spew {} ", old.pid.unwrap());
    let lines =
        text.lines().filter_map(|line| line.strip_prefix(&lead)?.split(' ').next()?.parse::<u64>().ok());
    let lines: Vec<u64> = lines.collect();
    assert!(!lines.is_empty() && lines.windows(2).all(|two| two[1] == two[0] + 1), "{lines:?}");
    let aside = std::fs::read_to_string(setup.runtime().join("run/llamacpp-p.r0.log.1")).unwrap();
    let last: u64 =
        aside.lines().filter_map(|l| l.strip_prefix(&lead)?.split(' ').next()?.parse().ok()).max().unwrap();
    assert!(last >= *lines.last().unwrap(), "what it wrote last is kept: {last}");
    manager.running.shutdown().await;
}

/// POOLD-CAUSE-002
#[tokio::test]
async fn what_an_earlier_life_wrote_says_nothing_about_the_end_of_an_adopted_one() {
    let mut setup = setup().with_faults(&[("SAY", "a life begins")]);
    setup.pool.on_exit = OnExit::Keep;
    let manager = setup.start().await;
    let first = manager.ready().await;
    signal(first.pid.unwrap(), Signal::KILL);
    let kept = manager.until(|r| r.phase == Phase::Ready && r.generation > first.generation).await;
    manager.running.shutdown().await;
    let next = setup.start().await;
    assert_eq!(next.ready().await.pid, kept.pid, "it is adopted");
    signal(kept.pid.unwrap(), Signal::KILL);
    let lost = next.until(|r| r.last_error.is_some()).await;
    let tail = error(&lost).log_tail.join("\n");
    assert_eq!(tail.matches("a life begins").count(), 1, "{tail}");
    next.running.shutdown().await;
}
