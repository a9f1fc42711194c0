//! How long it may take when there is nothing to do. The best of many tries counts: what a machine that
//! is busy with something else adds is not ours.

use std::time::{Duration, Instant};

use provisioners_engine_provisioner::Cancel;

use crate::machine::{Log, Machine};

/// Whether one of many tries takes no longer than `bar`; the best of them.
fn best(bar: Duration, mut once: impl FnMut()) -> Duration {
    let mut best = Duration::MAX;
    for _ in 0..100 {
        let began = Instant::now();
        once();
        best = best.min(began.elapsed());
        if best <= bar {
            break;
        }
    }
    best
}

/// EPROV-028
#[test]
fn with_everything_cached_an_engine_is_handed_out_within_50_ms() {
    let machine = Machine::new();
    let pool = machine.pool(vec![machine.archive("a.tar.gz")]);
    let ensure = || drop(machine.provisioner().ensure_pool(&pool, &Log::default(), &Cancel::new()).unwrap());
    ensure();
    let bar = Duration::from_millis(50);
    let took = best(bar, ensure);
    assert!(took <= bar, "the best of a hundred took {took:?}");
}

/// EPROV-028
#[test]
fn preflight_takes_no_more_than_300_ms() {
    let machine = Machine::new();
    let pool = machine.pool(vec![machine.archive("a.tar.gz")]);
    let plan = || assert!(!machine.alone().plan(&pool, &Cancel::new()).unwrap().preflight.checks.is_empty());
    let bar = Duration::from_millis(300);
    let took = best(bar, plan);
    assert!(took <= bar, "the best of a hundred took {took:?}");
}
