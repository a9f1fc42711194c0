//! A stop in order: what waits and what runs is the next process's.

use super::*;

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
