//! The record of a task on disk: a prompt that is gone or damaged, and a task that could not be recorded.

use super::*;

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

/// How often a text is in the files of a directory; of no text, how many bytes there are.
fn count_text(dir: &Path, text: &str) -> usize {
    let files = std::fs::read_dir(dir).unwrap().filter_map(|file| std::fs::read(file.unwrap().path()).ok());
    let count = |bytes: Vec<u8>| match text.len() {
        0 => bytes.len(),
        length => bytes.windows(length).filter(|at| *at == text.as_bytes()).count(),
    };
    files.map(count).sum()
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
