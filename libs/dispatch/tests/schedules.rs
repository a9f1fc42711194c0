//! Random schedules of everything at once: no wake-up is lost, no bound is passed, every admitted
//! task ends exactly once.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test helper fails by panicking"
)]

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dispatch::{Detach, Limits, Task, TaskSpec};
use proptest::prelude::*;
use support::{Engine, Script, World, all, batch, key, pool, spec};
use task_log::Entry;
use wire::config::FullPolicy;
use wire::task::{Placement, PlacementMode};

const CAPACITY: u32 = 6;
const SLOTS: u32 = 2;

#[derive(Debug, Clone)]
enum Act {
    Submit { batch: bool, prefer: Option<u32>, deadline_ms: Option<u64>, detach_ms: Option<u64> },
    Next(u32, Script),
    Up(u32),
    Down(u32),
    Drain(u32),
    Cancel(usize),
    Sleep(u64),
}

fn script() -> impl Strategy<Value = Script> {
    prop_oneof![
        4 => (0..5_u32, 0..20_u64).prop_map(|(n, ms)| Script::Speak(n, Duration::from_millis(ms))),
        1 => (0..3_u32).prop_map(Script::BreakAfter),
        1 => Just(Script::Unreachable),
        1 => Just(Script::Refuse(wire::ErrorCode::InvalidParams, "no".to_owned())),
        1 => (0..3_u32).prop_map(Script::HangAfter),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (any::<bool>(), proptest::option::of(0..2_u32), proptest::option::of(1..2_000_u64),
              proptest::option::of(1..500_u64))
            .prop_map(|(batch, prefer, deadline_ms, detach_ms)| {
                Act::Submit { batch, prefer, deadline_ms, detach_ms }
            }),
        3 => (0..2_u32, script()).prop_map(|(n, script)| Act::Next(n, script)),
        2 => (0..2_u32).prop_map(Act::Up),
        1 => (0..2_u32).prop_map(Act::Down),
        1 => (0..2_u32).prop_map(Act::Drain),
        2 => (0..30_usize).prop_map(Act::Cancel),
        4 => (0..1_500_u64).prop_map(Act::Sleep),
    ]
}

fn submission(batched: bool, prefer: Option<u32>, deadline: Option<u64>, detach: Option<u64>) -> TaskSpec {
    let base = if batched { batch("x") } else { spec("x") };
    let placement = prefer.map(|n| Placement {
        mode: PlacementMode::Prefer,
        pool_id: Some(pool()),
        replica_id: Some(key(n).replica),
    });
    TaskSpec {
        placement,
        deadline: deadline.map(Duration::from_millis),
        detach: detach.map_or(Detach::Never, |ms| Detach::After(Duration::from_millis(ms))),
        ..base
    }
}

async fn play(acts: Vec<Act>, policy: FullPolicy) -> Result<(), TestCaseError> {
    let world = World::with(CAPACITY, policy, Limits::default());
    let engines = [0, 1].map(|_| Engine::new(Script::Speak(2, Duration::from_millis(5))));
    let mut lives = [0_u64; 2];
    let mut tasks: Vec<Task> = Vec::new();
    for act in acts {
        match act {
            Act::Submit { batch, prefer, deadline_ms, detach_ms } => {
                tasks.extend(world.dispatch.submit(submission(batch, prefer, deadline_ms, detach_ms)));
            }
            Act::Next(n, script) => engines[n as usize].then(script),
            Act::Up(n) => {
                lives[n as usize] += 1;
                world.up(n, lives[n as usize], SLOTS, &engines[n as usize]);
            }
            Act::Down(n) => world.down(n, lives[n as usize]),
            Act::Drain(n) => {
                let generation = lives[n as usize];
                world.registry.apply(registry::Event::Superseded { key: key(n), generation });
            }
            Act::Cancel(n) => tasks.get(n).into_iter().for_each(Task::cancel),
            // The schedule says so, by a clock that stands still.
            Act::Sleep(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
        }
        // A task that is put back may pass the bound by the slots it came from.
        prop_assert!(world.dispatch.queue_depth(&pool()) <= CAPACITY + 2 * SLOTS);
    }
    finish(&world, &engines, &mut lives, &tasks).await
}

/// Brings healthy engines up and cancels what hangs; then everything must come to its end.
async fn finish(
    world: &World,
    engines: &[Arc<Engine>; 2],
    lives: &mut [u64; 2],
    tasks: &[Task],
) -> Result<(), TestCaseError> {
    for (n, engine) in (0..).zip(engines) {
        engine.script.lock().unwrap().clear();
        lives[n as usize] += 1;
        world.up(n, lives[n as usize], SLOTS, engine);
        // A life that drained keeps what hangs on it, until its engine is gone as well.
        for before in 1..lives[n as usize] {
            world.registry.apply(registry::Event::Down {
                key: key(n),
                generation: before,
                reason: "its engine ended".to_owned(),
            });
        }
    }
    // By a clock that stands still: all that waits for a time gets it.
    tokio::time::sleep(Duration::from_secs(60)).await;
    for task in tasks {
        let entries = all(task).await;
        let terminal = entries.iter().filter(|entry| entry.is_terminal()).count();
        prop_assert_eq!(terminal, 1);
        prop_assert!(entries.last().is_some_and(Entry::is_terminal));
        prop_assert!(task.view().state.is_terminal());
        let indices: Vec<_> = entries.iter().filter_map(index).collect();
        prop_assert!(indices.iter().copied().eq(0..indices.len() as u64), "a gap in {:?}", indices);
        let started = entries.iter().filter(|entry| matches!(entry, Entry::Started(_))).count();
        let starts = entries.first().is_some_and(|first| matches!(first, Entry::Started(_)));
        prop_assert_eq!(started, usize::from(starts));
    }
    prop_assert_eq!(world.dispatch.queue_depth(&pool()), 0);
    for (n, engine) in (0..).zip(engines) {
        prop_assert_eq!(world.free(n), SLOTS);
        prop_assert_eq!(engine.running.load(Ordering::SeqCst), 0);
    }
    world.shutdown.cancel();
    world.tracker.close();
    world.tracker.wait().await;
    Ok(())
}

fn index(entry: &Entry) -> Option<u64> {
    match entry {
        Entry::Chunk { index, .. } => *index,
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]
    #[test]
    fn every_schedule_ends_every_task_exactly_once(
        acts in proptest::collection::vec(act(), 0..60),
        drop_lru: bool,
    ) {
        let policy = if drop_lru { FullPolicy::DropLru } else { FullPolicy::Reject };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time().start_paused(true).build().unwrap();
        runtime.block_on(play(acts, policy))?;
    }
}
