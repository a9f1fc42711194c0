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
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::filter::LevelFilter;
use wire::ErrorCode;

const SECRET: &str = "sesame-4711";

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    /// Until what it returns is dropped.
    fn catch(&self, level: LevelFilter) -> DefaultGuard {
        let writer = self.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(level)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::set_default(subscriber)
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

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
    let _logging = lines.catch(LevelFilter::TRACE);
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
    let lines = lines.text();
    assert_eq!(lines.matches("the engine reported an error").count(), 4, "the lines were caught: {lines}");
    assert!(!lines.contains(SECRET), "{lines}");
}

/// ORCHD-PLACE-001
#[tokio::test(start_paused = true)]
async fn every_decision_that_gave_a_slot_is_a_line_in_the_words_that_the_task_shows() {
    let lines = Lines::default();
    let _logging = lines.catch(LevelFilter::INFO);
    let world = World::new();
    let engine = Engine::new(Script::ReportAfter(0, "not now".to_owned()));
    world.up(0, 1, 1, &engine);
    let task = world.submit(spec("a"));
    assert_eq!(words(&task).await, "started:r0 resumed:r0 resumed:r0 error:INTERNAL:0");
    let (lines, shown) = (lines.text(), task.view().placement.unwrap());
    let placed: Vec<_> = lines.lines().filter(|line| line.contains(": placed ")).collect();
    assert_eq!(placed.len(), 3, "one for each time it was placed: {lines}");
    let task = format!("task={} outcome=\"most_free\" words={shown:?}", task.id());
    assert!(placed.iter().all(|line| line.contains(&task)), "{task}: {lines}");
}
