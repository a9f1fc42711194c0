//! Tasks that had begun when the process before ended: what was said stays said, and an answer goes on behind it.

use super::*;

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

/// An answer that may go on has so many entries, and its process is killed.
async fn cut_off(life: Life, engine: &Arc<Engine>, entries: u64) {
    life.world.up(0, 1, 1, engine);
    let spec = TaskSpec { on_interrupt: OnInterrupt::Resume, ..named("a") };
    until_entries(&life.submit(spec).await, entries).await;
    life.killed().await;
}

/// ORCHD-RESUME-010, ORCHD-JOURNAL-003
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_a_restart_cut_off_goes_on_behind_its_log() {
    let dir = scratch();
    cut_off(Life::begin(dir.path()), &Engine::new(Script::HangAfter(2)), 3).await;
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

/// ORCHD-RESUME-002: also those that an earlier process made, of which only the log tells.
#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_tells_of_every_seam_whichever_process_made_it() {
    let dir = scratch();
    let life = Life::begin(dir.path());
    let engine = Engine::new(Script::HangAfter(3));
    engine.then(Script::BreakAfter(1));
    cut_off(life, &engine, 5).await;
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
    cut_off(life, &engine, 4).await;
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
    cut_off(Life::begin(dir.path()), &Engine::new(Script::HangAfter(2)), 3).await;
    let life = Life::begin(dir.path());
    let other = Engine::new(Script::Speak(4, Duration::ZERO));
    life.world.up_with("other", 0, 1, 1, &other);
    let task = life.task("a").unwrap();
    assert_eq!(words(&task).await, "started:r0 0=t0 1=t1 error:ENGINE_LOST:2");
    assert!(task.view().error.unwrap().hint.unwrap().contains("model has changed"));
    assert!(other.asked().is_empty());
    life.killed().await;
}
