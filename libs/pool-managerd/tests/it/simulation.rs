//! The restart schedule over ten thousand made-up histories of one replica, in virtual time: whatever
//! an engine does, its restarts stay within the bars.

use std::time::Duration;

use pool_managerd::{Next, RestartPolicy, RestartSchedule};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use tokio::time::Instant;

/// One life: how long it served, whether it was mute, and the dice of the pause after it.
#[derive(Debug, Clone, Copy)]
struct Life {
    served: Duration,
    mute: bool,
    jitter: f64,
}

/// One start of a simulated replica, and what was decided when that life was over.
#[derive(Debug)]
struct Start {
    at: Duration,
    life: Life,
    losses: u32,
    next: Next,
}

fn lives(serves: impl Strategy<Value = u64>) -> impl Strategy<Value = Vec<Life>> {
    let life = (serves, any::<bool>(), 0.0..=1.0).prop_map(|(ms, mute, jitter)| Life {
        served: Duration::from_millis(ms),
        mute,
        jitter,
    });
    prop::collection::vec(life, 1..60)
}

/// Lives through them as a replica's task does, on a clock that stands still unless it is waited for.
fn history(lives: &[Life]) -> Vec<Start> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let begun = Instant::now();
        let mut schedule = RestartSchedule::new(RestartPolicy::default());
        let mut starts = Vec::new();
        for &life in lives {
            let at = begun.elapsed();
            tokio::time::sleep(life.served).await;
            let next = schedule.lost(life.served, if life.mute { 2 } else { 1 }, life.jitter);
            starts.push(Start { at, life, losses: schedule.losses(), next });
            let (Next::Restart(pause) | Next::Trial(pause)) = next;
            tokio::time::sleep(pause).await;
        }
        starts
    })
}

fn seeded() -> ProptestConfig {
    ProptestConfig {
        cases: 10_000,
        rng_seed: RngSeed::Fixed(20),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

const STABLE: Duration = Duration::from_mins(10);

proptest! {
    #![proptest_config(seeded())]

    /// POOLD-RESTART-001, POOLD-RESTART-002
    #[test]
    fn no_ten_minutes_see_more_than_twelve_starts_of_an_engine_that_never_serves_long(
        lives in lives(prop_oneof![Just(0_u64), 0_u64..5_000, 0_u64..599_999]),
    ) {
        let starts = history(&lives);
        for (i, first) in starts.iter().enumerate() {
            let within = |limit| starts[i..].iter().filter(|s| s.at < first.at + limit).count();
            prop_assert!(within(STABLE) <= 12, "{} starts in 600 s", within(STABLE));
            prop_assert!(within(Duration::from_secs(10)) <= 5, "{} in 10 s", within(Duration::from_secs(10)));
        }
    }

    /// POOLD-RESTART-002, POOLD-RESTART-004
    #[test]
    fn the_breaker_is_open_exactly_when_the_lives_since_the_last_long_one_weigh_six(
        lives in lives(prop_oneof![3 => 0_u64..700_000, 1 => Just(600_000_u64)]),
    ) {
        let mut weight = 0;
        for start in history(&lives) {
            if start.life.served >= STABLE {
                weight = 0;
            }
            weight += if start.life.mute { 2 } else { 1 };
            prop_assert_eq!(start.losses, weight);
            prop_assert_eq!(matches!(start.next, Next::Trial(_)), weight >= 6);
        }
    }

    /// POOLD-RESTART-001
    #[test]
    fn pauses_never_shrink_but_for_their_jitter_and_never_pass_their_longest(
        lives in lives(0_u64..599_999),
    ) {
        let mut before = Duration::ZERO;
        for start in history(&lives) {
            let (Next::Restart(pause) | Next::Trial(pause)) = start.next;
            let plain = pause.div_f64(1.0 + 0.5 * start.life.jitter) + Duration::from_millis(1);
            prop_assert!(plain >= before, "{plain:?} after {before:?}");
            prop_assert!(pause <= Duration::from_secs(450), "{pause:?}");
            before = plain.saturating_sub(Duration::from_millis(2));
        }
    }
}
