//! What dispatch logs, and what it must not: an engine's words may quote the prompt.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test helper fails by panicking"
)]

mod support;

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use support::{Engine, Script, World, spec, words};
use tracing_subscriber::filter::LevelFilter;
use wire::ErrorCode;

const SECRET: &str = "sesame-4711";

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// SEC-004
#[tokio::test(start_paused = true)]
async fn no_line_and_no_reason_holds_what_the_engine_said_and_its_owner_reads_it() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    let world = World::new();
    let said = || format!("failed at {SECRET}");
    let engine = Engine::new(Script::ReportAfter(0, said()));
    world.up(0, 1, 1, &engine);
    let silent = world.submit(spec("a"));
    assert_eq!(words(&silent).await, "started:r0 resumed:r0 resumed:r0 error:INTERNAL:0");
    engine.then(Script::ReportAfter(2, said()));
    engine.then(Script::Refuse(ErrorCode::InvalidParams, said()));
    let speaking = world.submit(spec("b"));
    assert_eq!(words(&speaking).await, "started:r0 0=t0 1=t1 error:INTERNAL:2");
    let refused = world.submit(spec("c"));
    assert_eq!(words(&refused).await, "started:r0 error:INVALID_PARAMS:0");

    for task in [&silent, &speaking, &refused] {
        assert!(task.view().error.unwrap().message.contains(SECRET), "its owner reads it");
    }
    for entry in support::all(&silent).await {
        if let task_log::Entry::Resumed(resumed) = entry {
            assert!(!resumed.reason.contains(SECRET), "{}", resumed.reason);
        }
    }
    let lines = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert_eq!(lines.matches("the engine reported an error").count(), 4, "the lines were caught: {lines}");
    assert!(!lines.contains(SECRET), "{lines}");
}
