//! What a task that asks for it leaves behind when it has finished.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "support/mod.rs"]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use adapter_host::EngineRequest;
use dispatch::{Task, TaskSpec};
use support::{Engine, Script, World, all, owner, spec, until_entries};
use task_log::Entry;
use task_log::artifacts::{ArtifactLimits, Artifacts};
use task_log::journal::Space;
use wire::event::{End, FinishReason};
use wire::task::OnInterrupt;
use wire::{Seed, TaskState, Transcript};

const MS: Duration = Duration::from_millis(1);

/// A dispatch that keeps transcripts on a disk that can be filled.
struct Keeping {
    world: World,
    artifacts: Artifacts,
    full: Arc<AtomicBool>,
    dir: tempfile::TempDir,
}

impl Keeping {
    fn new() -> Self {
        let (world, dir, full) =
            (World::new(), tempfile::tempdir().unwrap(), Arc::new(AtomicBool::new(false)));
        let limits = ArtifactLimits { bytes: 1 << 20, count: 100, age: Duration::from_secs(3600) };
        let artifacts = Artifacts::open(dir.path(), limits, Space::full_while(Arc::clone(&full))).unwrap();
        world.dispatch.keep_transcripts(artifacts.clone());
        Self { world, artifacts, full, dir }
    }

    fn transcript(&self, end: &End) -> Transcript {
        let name = end.receipt.transcript_sha256.as_deref().unwrap();
        let bytes =
            self.artifacts.get(Some(&owner().shelf()), name).unwrap().expect("it is there before its end");
        serde_json::from_slice(&bytes).unwrap()
    }

    fn keeps_nothing(&self) -> bool {
        let shelves = std::fs::read_dir(self.dir.path()).unwrap().map(|shelf| shelf.unwrap().path());
        shelves.map(|shelf| std::fs::read_dir(shelf).unwrap().count()).sum::<usize>() == 0
    }
}

fn asking(max_tokens: Option<u32>) -> TaskSpec {
    let mut spec = TaskSpec { transcript: true, on_interrupt: OnInterrupt::Resume, ..spec("the prompt") };
    let EngineRequest::Completion(completion) = &mut spec.request else { panic!("a completion") };
    completion.sampling.max_tokens = max_tokens;
    spec
}

async fn end(task: &Task) -> End {
    match all(task).await.last() {
        Some(Entry::End(end)) => end.clone(),
        other => panic!("no end: {other:?}"),
    }
}

/// ORCHD-TRANSCRIPT-001
#[tokio::test(flavor = "multi_thread")]
async fn a_finished_task_leaves_what_was_asked_and_answered_and_no_other_leaves_anything() {
    let keeping = Keeping::new();
    let engine = Engine::new(Script::Speak(3, MS));
    engine.then(Script::HangAfter(2));
    keeping.world.up(0, 1, 1, &engine);
    let cancelled = keeping.world.submit(asking(None));
    until_entries(&cancelled, 3).await;
    cancelled.cancel();
    assert_eq!(end(&cancelled).await.receipt.transcript_sha256, None);
    let silent = keeping.world.submit(TaskSpec { transcript: false, ..asking(None) });
    assert_eq!(end(&silent).await.receipt.transcript_sha256, None);
    assert!(keeping.keeps_nothing());

    let task = keeping.world.submit(asking(None));
    let end = end(&task).await;
    let transcript = keeping.transcript(&end);
    assert_eq!(transcript.request.prompt.as_deref(), Some("the prompt"));
    assert_eq!(transcript.request.seed, Some(Seed(42)));
    assert_eq!((transcript.text.as_str(), transcript.tokens), ("t0 t1 t2 ", Some(vec![0, 1, 2])));
    assert_eq!(transcript.receipt.tokens_sha256, end.receipt.tokens_sha256);
    assert_eq!(transcript.finish_reason, FinishReason::Stop);
}

/// ORCHD-TRANSCRIPT-001, ORCHD-RESUME-005
#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_had_said_all_when_its_engine_was_lost_leaves_one_too() {
    let keeping = Keeping::new();
    keeping.world.up(0, 1, 1, &Engine::new(Script::BreakAfter(2)));
    let end = end(&keeping.world.submit(asking(Some(2)))).await;
    assert_eq!(end.finish_reason, FinishReason::Length);
    assert_eq!(keeping.transcript(&end).text, "t0 t1 ");
}

/// ORCHD-TRANSCRIPT-001
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_takes_the_transcript_and_nothing_of_the_answer() {
    let keeping = Keeping::new();
    keeping.full.store(true, Ordering::SeqCst);
    keeping.world.up(0, 1, 1, &Engine::new(Script::Speak(3, MS)));
    let task = keeping.world.submit(asking(None));
    let of_full = end(&task).await;
    assert_eq!((of_full.finish_reason, of_full.tokens_out), (FinishReason::Stop, 4));
    assert_eq!(of_full.receipt.transcript_sha256, None);
    assert_eq!(task.view().state, TaskState::Done);
    assert!(keeping.keeps_nothing());
    keeping.full.store(false, Ordering::SeqCst);
    let after = end(&keeping.world.submit(asking(None))).await;
    assert_eq!(keeping.transcript(&after).text, "t0 t1 t2 ");
}
