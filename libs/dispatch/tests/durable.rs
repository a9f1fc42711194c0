//! Tasks that outlive a process: two dispatches over one journal, one after the other.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test helper fails by panicking"
)]

mod support;

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use adapter_host::SoFar;
use dispatch::{AdmissionError, Owner, TaskFilter, TaskSpec};
use support::life::{Life, named, scratch};
use support::*;
use task_log::Position;
use task_log::journal::{Admission, Options, Space};
use wire::task::OnInterrupt;
use wire::{SessionId, TaskState};

/// ORCHD-JOURNAL-001, ORCHD-JOURNAL-003
#[tokio::test(flavor = "multi_thread")]
async fn waiting_tasks_wait_again_in_their_order_and_run_once() {
    let dir = scratch();
    let life = Life::begin(dir.path());
    for id in ["a", "b", "c"] {
        life.submit(named(id)).await;
    }
    life.submit(TaskSpec { priority: wire::task::Priority::Batch, ..named("later") }).await;
    life.killed().await;
    let life = Life::begin(dir.path());
    assert_eq!(life.taken.waiting, 4);
    let conflict = TaskSpec { fingerprint: [9; 32], ..named("b") };
    assert!(matches!(
        life.world.dispatch.submit_durably(conflict).await,
        Err(AdmissionError::Conflict { .. })
    ));
    assert!(!life.submit(named("b")).await.created_now, "the same body is the same task");
    let stranger = Owner::Data("two".into());
    assert!(life.world.dispatch.task(&id("a"), &stranger).is_none());
    let engine = Engine::new(Script::Speak(2, Duration::ZERO));
    life.world.up(0, 1, 1, &engine);
    for id in ["a", "b", "c", "later"] {
        assert_eq!(words(&life.task(id).unwrap()).await, "started:r0 0=t0 1=t1 end:stop", "{id}");
    }
    assert_eq!(engine.prompts(), ["a", "b", "c", "later"]);
    life.killed().await;
    let life = Life::begin(dir.path());
    assert_eq!((life.taken.waiting, life.taken.ended), (0, 4));
    life.world.up(0, 1, 1, &engine);
    life.submit(named("new")).await;
    words(&life.task("new").unwrap()).await;
    assert_eq!(engine.prompts().len(), 5, "nothing ran twice");
    life.killed().await;
}

/// ORCHD-JOURNAL-004: a task may be over before its admission is on disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_ends_before_it_is_recorded_leaves_no_prompt() {
    const HOLDER: u64 = 1_000_000;
    let dir = scratch();
    // Whatever has happened is due for a sync whenever the journal's thread looks.
    let life = Life::with(dir.path(), Options { sync_every: Duration::ZERO, ..Options::default() });
    let (held, holds) = std::sync::mpsc::channel();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let record = serde_json::value::RawValue::from_string("{}".to_owned()).unwrap();
    let holder = Admission { seq: HOLDER, record, prompt: b"HOLDER".to_vec() };
    let wait = move |_| {
        held.send(()).unwrap();
        let _until_the_sender_goes = released.recv_timeout(Duration::from_secs(60));
    };
    life.journal.admit(holder, Box::new(wait));
    holds.recv_timeout(Duration::from_secs(60)).unwrap();
    let engine = Engine::new(Script::Speak(1, Duration::ZERO));
    life.world.up(0, 1, 1, &engine);
    let mut submitted = Vec::new();
    for n in 1..=3 {
        let dispatch = life.world.dispatch.clone();
        submitted
            .push(tokio::spawn(async move { dispatch.submit_durably(named(&format!("secret-{n}"))).await }));
        // What is written of the last one comes after all that the journal was told of the ones before.
        until(|| count_text(&dir.path().join("events"), "finish_reason") >= n).await;
    }
    assert!(submitted.iter().all(|submitted| !submitted.is_finished()), "nothing is recorded yet");
    drop(release);
    for submitted in submitted {
        let task = submitted.await.unwrap().unwrap();
        assert_eq!(task.view().state, TaskState::Done);
    }
    life.journal.forget(HOLDER);
    until(|| count_text(&dir.path().join("prompts"), "") == 0).await;
    life.killed().await;
    let life = Life::begin(dir.path());
    assert_eq!((life.taken.waiting, life.taken.ended), (0, 3));
    assert_eq!(life.task("secret-1").unwrap().view().state, TaskState::Done);
    life.killed().await;
}

/// ORCHD-JOURNAL-007: nothing runs on a prompt that is not what was accepted.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_whose_prompt_is_damaged_says_so_and_the_others_run() {
    let dir = scratch();
    let life = Life::begin(dir.path());
    for id in ["damaged", "sound"] {
        life.submit(named(id)).await;
    }
    life.killed().await;
    let prompts = dir.path().join("prompts");
    let file = std::fs::read_dir(&prompts).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&file).unwrap();
    let at = bytes.windows(7).position(|at| at == b"damaged").unwrap();
    bytes[at] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let life = Life::begin(dir.path());
    assert_eq!((life.taken.waiting, life.taken.interrupted), (1, 1));
    let engine = Engine::new(Script::Speak(1, Duration::ZERO));
    life.world.up(0, 1, 1, &engine);
    let damaged = life.task("damaged").unwrap();
    assert_eq!(words(&damaged).await, "error:INTERRUPTED:0");
    let Some(task_log::Entry::Error(error)) = damaged.log().terminal().as_deref().cloned() else {
        panic!("it has not failed");
    };
    assert!(error.retriable && error.message.contains("could not read the task's prompt"), "{error:?}");
    assert_eq!(words(&life.task("sound").unwrap()).await, "started:r0 0=t0 end:stop");
    assert_eq!(engine.prompts(), ["sound"]);
    until(|| count_text(&prompts, "") == 0).await;
    life.killed().await;
}

async fn until(holds: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "not within 60 s");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// How often a text is in the files of a directory; of no text, how many bytes there are.
fn count_text(dir: &Path, text: &str) -> usize {
    let files = std::fs::read_dir(dir).unwrap().filter_map(|file| std::fs::read(file.unwrap().path()).ok());
    let count = |bytes: Vec<u8>| match text.len() {
        0 => bytes.len(),
        length => bytes.windows(length).filter(|at| *at == text.as_bytes()).count(),
    };
    files.map(count).sum()
}

/// ORCHD-JOURNAL-002
#[tokio::test(flavor = "multi_thread")]
async fn an_ended_task_reads_the_same_after_a_restart_from_every_position() {
    let dir = scratch();
    let life = Life::begin(dir.path());
    let engine = Engine::new(Script::Speak(3, Duration::ZERO));
    life.world.up(0, 1, 1, &engine);
    let task = life.submit(named("a")).await;
    let before = all(&task).await;
    let view = serde_json::to_value(task.view()).unwrap();
    life.killed().await;
    let life = Life::begin(dir.path());
    let task = life.task("a").unwrap();
    assert_eq!(serde_json::to_value(task.view()).unwrap(), view);
    let json = |entries: &[task_log::Entry]| serde_json::to_string(entries).unwrap();
    for n in 0..before.len() {
        let after: Position = n.to_string().parse().unwrap();
        let mut follower = task.log().follow(Some(after));
        let mut seen = Vec::new();
        while let Some((_, entry)) = follower.next().await {
            seen.push((*entry).clone());
        }
        assert_eq!(json(&seen), json(&before[n + 1..]));
    }
    let listed =
        life.world.dispatch.tasks(&TaskFilter { owner: owner(), state: None, limit: 10, before: None }).tasks;
    assert_eq!(listed.len(), 1);
    task.cancel();
    assert_eq!(task.view().state, TaskState::Done, "what had ended stays as it ended");
    life.killed().await;
}

/// ORCHD-JOURNAL-003
#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_had_not_spoken_runs_again_and_one_that_had_says_that_it_was_cut_off() {
    let dir = scratch();
    let life = Life::begin(dir.path());
    let engine = Engine::new(Script::HangAfter(0));
    engine.then(Script::HangAfter(2));
    life.world.up(0, 1, 2, &engine);
    let spoke = life.submit(named("spoke")).await;
    until_entries(&spoke, 3).await;
    let silent = life.submit(named("silent")).await;
    until_entries(&silent, 1).await;
    life.killed().await;
    let life = Life::begin(dir.path());
    assert_eq!((life.taken.waiting, life.taken.interrupted), (1, 1));
    assert_eq!(words(&life.task("spoke").unwrap()).await, "started:r0 0=t0 1=t1 error:INTERRUPTED:2");
    assert_eq!(life.task("spoke").unwrap().view().state, TaskState::Interrupted);
    let engine = Engine::new(Script::Speak(1, Duration::ZERO));
    life.world.up(0, 1, 1, &engine);
    assert_eq!(words(&life.task("silent").unwrap()).await, "started:r0 resumed:r0 0=t0 end:stop");
    life.killed().await;
}

/// ORCHD-RESUME-010, ORCHD-JOURNAL-003
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_a_restart_cut_off_goes_on_behind_its_log() {
    let dir = scratch();
    let life = Life::begin(dir.path());
    life.world.up(0, 1, 1, &Engine::new(Script::HangAfter(2)));
    let spec = TaskSpec { on_interrupt: OnInterrupt::Resume, ..named("a") };
    until_entries(&life.submit(spec).await, 3).await;
    life.killed().await;
    let life = Life::begin(dir.path());
    assert_eq!((life.taken.waiting, life.taken.interrupted), (1, 0));
    let engine = Engine::new(Script::Speak(4, Duration::ZERO));
    life.world.up(0, 1, 1, &engine);
    let task = life.task("a").unwrap();
    assert_eq!(words(&task).await, "started:r0 0=t0 1=t1 resumed:r0 2=t2 3=t3 end:stop");
    assert_eq!(engine.asked()[0].so_far, SoFar::Ids(vec![0, 1]));
    assert_eq!((task.view().tokens_in, task.view().tokens_out), (Some(7), Some(5)));
    life.killed().await;
}

/// ORCHD-RESUME-012: the log of a task tells the next process what it has spent.
#[tokio::test(flavor = "multi_thread")]
async fn the_time_on_engines_is_counted_on_over_a_restart() {
    let dir = scratch();
    let life = Life::begin(dir.path());
    // As slow as it takes for every token to be noted.
    life.world.up(0, 1, 1, &Engine::new(Script::Speak(100, Duration::from_millis(1_050))));
    let spec = TaskSpec { on_interrupt: OnInterrupt::Resume, ..named("a") };
    until_entries(&life.submit(spec).await, 2).await;
    life.killed().await;
    let life = Life::begin(dir.path());
    let task = life.task("a").unwrap();
    assert_eq!(task.view().decode_time_ms, None, "until it ends");
    life.world.up(0, 1, 1, &Engine::new(Script::Speak(3, Duration::ZERO)));
    let entries = all(&task).await;
    let noted = entries.iter().find_map(|entry| match entry {
        task_log::Entry::Chunk { decode_ms, .. } => *decode_ms,
        _ => None,
    });
    assert!(noted.is_some_and(|ms| ms >= 1_050), "{noted:?}");
    let told = task.view().decode_time_ms;
    assert!(told >= noted, "{told:?} after {noted:?}");
    assert_eq!(life.world.dispatch.usage()[0].decode_time_ms, told.unwrap());
    life.killed().await;
}

/// ORCHD-RESUME-002: also those that an earlier process made, of which only the log tells.
#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_tells_of_every_seam_whichever_process_made_it() {
    let dir = scratch();
    let life = Life::begin(dir.path());
    let engine = Engine::new(Script::HangAfter(3));
    engine.then(Script::BreakAfter(1));
    life.world.up(0, 1, 1, &engine);
    let spec = TaskSpec { on_interrupt: OnInterrupt::Resume, ..named("a") };
    until_entries(&life.submit(spec).await, 5).await;
    life.killed().await;
    let life = Life::begin(dir.path());
    let last = Engine::new(Script::Speak(5, Duration::ZERO));
    life.world.up(1, 1, 1, &last);
    let task = life.task("a").unwrap();
    let expected = "started:r0 0=t0 resumed:r0 1=t1 2=t2 resumed:r1 3=t3 4=t4 end:stop";
    assert_eq!(words(&task).await, expected);
    let seams = task.view().receipt.unwrap().seams;
    let places: Vec<_> = seams.iter().map(|seam| (seam.from_index, seam.replica_id.as_str())).collect();
    assert_eq!(places, [(1, "r0"), (3, "r1")]);
    // What each engine was asked with stands in the receipt.
    let asked = [engine.asked()[1].clone(), last.asked()[0].clone()];
    let seeds = asked.map(|asked| asked.sampling.seed.map(wire::Seed));
    assert_eq!(seams.iter().map(|seam| seam.seed).collect::<Vec<_>>(), seeds);
    assert!(seams.iter().all(|seam| seam.by == wire::event::SeamBy::Ids), "{seams:?}");
    life.killed().await;
}

/// ORCHD-RESUME-008: a restart does not begin the count anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_taken_over_as_often_as_it_may_over_all_processes() {
    let dir = scratch();
    let limits = || dispatch::Limits { resumes: 2, ..dispatch::Limits::default() };
    let world = || World::with(8, wire::config::FullPolicy::Reject, limits());
    let life = Life::of(world(), dir.path(), Options::default());
    let engine = Engine::new(Script::HangAfter(2));
    engine.then(Script::BreakAfter(1));
    life.world.up(0, 1, 1, &engine);
    let spec = TaskSpec { on_interrupt: OnInterrupt::Resume, ..named("a") };
    until_entries(&life.submit(spec).await, 4).await;
    life.killed().await;
    let life = Life::of(world(), dir.path(), Options::default());
    life.world.up(0, 1, 1, &Engine::new(Script::BreakAfter(3)));
    let task = life.task("a").unwrap();
    let expected = "started:r0 0=t0 resumed:r0 1=t1 resumed:r0 2=t2 error:ENGINE_LOST:3";
    assert_eq!(words(&task).await, expected);
    assert!(task.view().error.unwrap().hint.unwrap().contains("as often as a task may be"));
    life.killed().await;
}

/// ORCHD-RESUME-011
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_a_restart_cut_off_does_not_go_on_with_another_model() {
    let dir = scratch();
    let life = Life::begin(dir.path());
    life.world.up(0, 1, 1, &Engine::new(Script::HangAfter(2)));
    let spec = TaskSpec { on_interrupt: OnInterrupt::Resume, ..named("a") };
    until_entries(&life.submit(spec).await, 3).await;
    life.killed().await;
    let life = Life::begin(dir.path());
    let other = Engine::new(Script::Speak(4, Duration::ZERO));
    life.world.up_with("other", 0, 1, 1, &other);
    let task = life.task("a").unwrap();
    assert_eq!(words(&task).await, "started:r0 0=t0 1=t1 error:ENGINE_LOST:2");
    assert!(task.view().error.unwrap().hint.unwrap().contains("model has changed"));
    assert!(other.asked().is_empty());
    life.killed().await;
}

/// ORCHD-JOURNAL-003
#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_goes_on_while_nobody_runs() {
    let dir = scratch();
    let life = Life::begin(dir.path());
    life.submit(TaskSpec { deadline: Some(Duration::from_millis(1)), ..named("short") }).await;
    life.killed().await;
    let life = Life::begin(dir.path());
    assert_eq!(words(&life.task("short").unwrap()).await, "error:DEADLINE_EXCEEDED:0");
    life.killed().await;
}

/// ORCHD-JOURNAL-008
#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_cannot_be_recorded_has_never_been() {
    let dir = scratch();
    let full = Arc::new(AtomicBool::new(false));
    let options = Options { space: Space::full_while(Arc::clone(&full)), ..Options::default() };
    let life = Life::with(dir.path(), options);
    full.store(true, Ordering::SeqCst);
    let talk = SessionId::try_new("talk").unwrap();
    let in_talk = || TaskSpec { session: Some(talk.clone()), ..named("a") };
    let tried = Cell::new(0.0);
    let refused = async || {
        tried.set(tried.get() + 1.0);
        life.world.dispatch.submit_durably(in_talk()).await.err()
    };
    assert_eq!(refused().await, Some(AdmissionError::Unrecorded));
    assert_eq!(refused().await, Some(AdmissionError::Unrecorded));
    assert!(life.task("a").is_none());
    assert_eq!(life.world.dispatch.queue_depth(&pool()), 0);
    assert!(
        life.world
            .dispatch
            .tasks(&TaskFilter { owner: Owner::Control, state: None, limit: 9, before: None })
            .tasks
            .is_empty()
    );
    // A task that is not recorded needs no disk.
    life.world.submit(spec("volatile")).cancel();
    full.store(false, Ordering::SeqCst);
    let patience = tokio::time::Instant::now() + Duration::from_secs(20);
    while refused().await.is_some() {
        assert!(tokio::time::Instant::now() < patience);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(life.task("a").is_some());
    let counted = |series: &str| life.world.metric(series);
    let rejected = counted(r#"orchd_tasks_rejected_total{pool_id="p",reason="unrecorded"}"#);
    assert_eq!(rejected, Some(tried.get() - 1.0), "each refusal once");
    let admitted = counted(r#"orchd_tasks_enqueued_total{pool_id="p",priority="interactive"}"#);
    assert_eq!(admitted, Some(2.0), "the volatile one and the last");
    assert_eq!(counted(r#"orchd_tasks_failed_total{pool_id="p",code="INTERRUPTED"}"#), None);
    let session = life.world.dispatch.session(&talk, &owner()).unwrap();
    assert_eq!(session.turns, 1, "a refused task is no turn");
    life.killed().await;
    assert_eq!(Life::begin(dir.path()).taken.waiting, 1);
}

/// ORCHD-STOP-003
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_when_a_stop_comes_waits_for_the_next_process() {
    let dir = scratch();
    let life = Life::begin(dir.path());
    life.submit(named("waits")).await;
    let lives = life.world.submit(spec("lives only here"));
    life.world.shutdown.cancel();
    assert_eq!(words(&lives).await, "error:INTERRUPTED:0");
    life.world.dispatch.interrupt_now();
    assert_eq!(life.task("waits").unwrap().view().state, TaskState::Queued);
    life.killed().await;
    let life = Life::begin(dir.path());
    assert_eq!(life.taken.waiting, 1);
    life.killed().await;
}

/// ORCHD-STOP-004
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_a_stop_cuts_off_goes_on_in_the_next_process() {
    let dir = scratch();
    let limits = dispatch::Limits { drain: Duration::from_millis(10), ..dispatch::Limits::default() };
    let world = World::with(8, wire::config::FullPolicy::Reject, limits);
    let life = Life::of(world, dir.path(), Options::default());
    let engine = Engine::new(Script::HangAfter(2));
    life.world.up(0, 1, 4, &engine);
    let resuming = |id| TaskSpec { on_interrupt: OnInterrupt::Resume, ..named(id) };
    let goes_on = life.submit(resuming("goes-on")).await;
    let fails = life.submit(named("fails")).await;
    let lives = life.world.submit(TaskSpec { on_interrupt: OnInterrupt::Resume, ..spec("lives only here") });
    let mut bound = resuming("bound");
    let adapter_host::EngineRequest::Completion(completion) = &mut bound.request else { panic!() };
    completion.sampling.grammar = Some("root ::= any".to_owned());
    let bound = life.submit(bound).await;
    for task in [&goes_on, &fails, &lives, &bound] {
        until_entries(task, 3).await;
    }
    let waits = life.submit(resuming("waits")).await;
    life.world.shutdown.cancel();
    // Its follower waits for more when it is let go.
    assert_eq!(words(&goes_on).await, "started:r0 0=t0 1=t1");
    for task in [&fails, &lives, &bound] {
        assert_eq!(words(task).await, "started:r0 0=t0 1=t1 error:INTERRUPTED:2");
    }
    life.world.dispatch.interrupt_now();
    life.world.tracker.close();
    life.world.tracker.wait().await;
    assert_eq!(engine.running.load(Ordering::SeqCst), 0, "its slot is free");
    for (task, tokens_sent) in [(&goes_on, 2), (&waits, 0)] {
        let Some(task_log::Entry::Error(told)) = task.log().put_off().as_deref().cloned() else {
            panic!("its readers are told nothing")
        };
        assert_eq!((told.code, told.retriable), (wire::ErrorCode::Interrupted, true));
        assert_eq!(told.tokens_sent, tokens_sent);
        assert!(task.log().terminal().is_none(), "nothing of that is in its log");
        assert_eq!(task.view().state, TaskState::Queued);
    }
    life.killed().await;

    let life = Life::begin(dir.path());
    assert_eq!((life.taken.waiting, life.taken.interrupted, life.taken.ended), (2, 0, 2));
    let engine = Engine::new(Script::Speak(4, Duration::ZERO));
    life.world.up(0, 1, 2, &engine);
    let said = words(&life.task("goes-on").unwrap()).await;
    assert_eq!(said, "started:r0 0=t0 1=t1 resumed:r0 2=t2 3=t3 end:stop");
    let said = words(&life.task("waits").unwrap()).await;
    assert_eq!(said, "started:r0 0=t0 1=t1 2=t2 3=t3 end:stop");
    life.killed().await;
}

/// ORCHD-JOURNAL-003: a pool that only a handoff names is asked for by its name again once it is back.
#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_waiting_tasks_speak_of_is_what_its_handoff_says() {
    let dir = scratch();
    let named_by_handoff = || dispatch::PoolSpec {
        id: wire::PoolId::try_new("default").unwrap(),
        aliases: vec![],
        model_names: vec![],
        model_ref: String::new(),
        ctx: 4096,
        queue: wire::config::QueueConfig::default(),
        deterministic: false,
    };
    let id = named_by_handoff().id;
    let waits = |task: &str| TaskSpec { model: "default".to_owned(), ..named(task) };
    let life = Life::begin(dir.path());
    life.world.dispatch.ensure_pool(named_by_handoff());
    life.submit(waits("a")).await;
    life.killed().await;
    let life = Life::begin(dir.path());
    assert_eq!(life.taken.waiting, 1);
    assert!(!life.world.dispatch.model_names().contains(&"default".to_owned()), "nobody named it yet");
    life.world.dispatch.ensure_pool(named_by_handoff());
    assert!(life.world.dispatch.model_names().contains(&"default".to_owned()));
    assert_eq!(life.world.dispatch.pool_spec(&id).unwrap().ctx, 4096);
    life.submit(waits("b")).await;
    assert_eq!(life.world.dispatch.queue_depth(&id), 2, "in the same queue");
    // A pool that is known stays as it is.
    life.world.dispatch.ensure_pool(dispatch::PoolSpec { ctx: 1, ..named_by_handoff() });
    life.world.dispatch.ensure_pool(dispatch::PoolSpec { id: pool(), ..named_by_handoff() });
    let ctx = |id| life.world.dispatch.pool_spec(id).unwrap().ctx;
    assert_eq!((ctx(&id), ctx(&pool())), (4096, 2048));
    life.killed().await;
}

/// ORCHD-LIMIT-003: a task that waited through a restart is still one of its caller's.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_is_taken_back_counts_among_its_callers() {
    let dir = scratch();
    let begin = || {
        let callers = serde_json::from_str(r#"{"default":{"concurrent_tasks":1}}"#).unwrap();
        let limits = dispatch::Limits { callers, ..dispatch::Limits::default() };
        let world = World::with(8, wire::config::FullPolicy::Reject, limits);
        Life::of(world, dir.path(), Options::default())
    };
    let life = begin();
    life.submit(named("a")).await;
    life.killed().await;
    let life = begin();
    let second = async || life.world.dispatch.submit_durably(named("b")).await;
    assert!(matches!(second().await, Err(AdmissionError::RateLimited { .. })));
    life.task("a").unwrap().cancel();
    assert!(second().await.is_ok(), "its place is free when it has ended");
    life.killed().await;
}
