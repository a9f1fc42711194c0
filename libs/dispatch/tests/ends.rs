//! What is done before an end is told.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test helper fails by panicking"
)]

mod support;

use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};

use dispatch::{Limits, Task, TaskSpec};
use support::{Engine, Script, World, owner, spec, until_entries};
use wire::SessionId;
use wire::config::FullPolicy;

/// Looks in the very moment in which a reader is woken by the last entry: on another thread it might be
/// reading it by then.
struct Looks {
    world: Arc<World>,
    task: Task,
    seen: Mutex<Option<Seen>>,
}

#[derive(Debug, PartialEq)]
struct Seen {
    tasks: u64,
    tokens_out: u64,
    metric: Option<f64>,
    of_session: u64,
    /// Whether its caller, who may have one task at a time, can go on.
    next_turn: Result<(), String>,
}

impl Wake for Looks {
    fn wake(self: Arc<Self>) {
        if self.task.log().terminal().is_none() {
            return;
        }
        let usage = self.world.dispatch.usage();
        let session = self.world.dispatch.session(&session(), &owner()).unwrap();
        let next = self.world.dispatch.submit(turn());
        *self.seen.lock().unwrap() = Some(Seen {
            tasks: usage.iter().map(|row| row.tasks).sum(),
            tokens_out: usage.iter().map(|row| row.tokens_out).sum(),
            metric: self.world.metric(r#"orchd_tokens_out_total{pool_id="p",priority="interactive"}"#),
            of_session: session.tokens_out,
            next_turn: next.map(drop).map_err(|error| error.to_string()),
        });
    }
}

fn session() -> SessionId {
    SessionId::try_new("talk").unwrap()
}

fn turn() -> TaskSpec {
    TaskSpec { session: Some(session()), ..spec("a turn") }
}

/// ORCHD-USAGE-003
#[tokio::test(start_paused = true)]
async fn whoever_reads_an_end_finds_everything_counted() {
    let callers = serde_json::from_str(r#"{"default":{"concurrent_tasks":1}}"#).unwrap();
    let limits = Limits { callers, ..Limits::default() };
    let world = Arc::new(World::with(4, FullPolicy::Reject, limits));
    world.up(0, 1, 1, &Engine::new(Script::HangAfter(3)));
    let task = world.submit(turn());
    until_entries(&task, 4).await;
    let looks = Arc::new(Looks { world: Arc::clone(&world), task: task.clone(), seen: Mutex::default() });
    let mut reader = task.log().follow(None);
    let mut reads = std::pin::pin!(async { while reader.next().await.is_some() {} });
    let waker = Waker::from(Arc::clone(&looks));
    assert!(reads.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    task.cancel();
    let seen = looks.seen.lock().unwrap().take().unwrap();
    assert_eq!(seen, Seen { tasks: 1, tokens_out: 3, metric: Some(3.0), of_session: 3, next_turn: Ok(()) });
}
