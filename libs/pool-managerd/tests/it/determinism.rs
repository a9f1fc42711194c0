//! The self-test of a pool declared deterministic, from the engine's answers to what is published.

use std::time::Duration;

use wire::{Determinism, SelfTest};

use crate::harness::{Setup, setup};

fn declared() -> Setup {
    let mut setup = setup();
    setup.pool.deterministic = true;
    setup
}

/// What the handoff and the view say, which must be the same.
async fn published(setup: &Setup) -> Determinism {
    let manager = setup.start().await;
    let handoff = manager.ready().await;
    let shown = manager.replica().await.determinism;
    manager.running.shutdown().await;
    assert_eq!(shown, handoff.determinism, "the view and the handoff say the same");
    shown.expect("an engine of ours says what it may claim")
}

/// DET-002, DET-004, DET-005
#[tokio::test]
async fn a_declared_pool_that_answers_alike_may_claim_it_and_is_not_tested_again() {
    let setup = declared();
    let first = published(&setup).await;
    assert_eq!((first.result, first.differs.len()), (SelfTest::Passed, 0), "{first:?}");
    assert!(
        first.tested_at.is_some() && first.tokens_sha256.is_some() && !first.device.is_empty(),
        "{first:?}"
    );
    // Only a result that is read, not made, can have been there before its time.
    let file = std::fs::read_dir(setup.runtime().join("self-tests")).unwrap().next().unwrap().unwrap().path();
    let kept = Determinism { tested_at: Some("1999-12-31T00:00:00Z".to_owned()), ..first };
    std::fs::write(&file, serde_json::to_vec(&kept).unwrap()).unwrap();
    assert_eq!(published(&setup).await, kept);
    // Another environment is another engine.
    let setup = setup.with_faults(&[("TOKEN_MS", "0")]);
    assert_ne!(published(&setup).await.tested_at, kept.tested_at);
}

/// DET-002, DET-008
#[tokio::test]
async fn an_engine_that_answers_otherwise_the_second_time_claims_nothing_and_serves() {
    let setup = declared().with_faults(&[("STAMP", "1")]);
    let found = published(&setup).await;
    assert_eq!(found.result, SelfTest::Failed);
    let said = found.differs.join("\n");
    assert!(said.contains("prompt 1: the same tokens have another text"), "{said}");
}

/// DET-008
#[tokio::test]
async fn an_engine_too_slow_for_the_test_serves_untested() {
    let mut setup = declared().with_faults(&[("TOKEN_MS", "100")]);
    setup.timings.canary_timeout = Duration::from_millis(1_000);
    let found = published(&setup).await;
    assert_eq!((found.result, found.tested_at), (SelfTest::NotTested, None));
    assert!(found.differs.join("").contains("the test was not made"), "{:?}", found.differs);
}

/// DET-003
#[tokio::test]
async fn a_pool_that_is_not_declared_claims_nothing_and_is_not_tested() {
    let setup = setup();
    let found = published(&setup).await;
    assert_eq!((found.result, found.tested_at), (SelfTest::NotDeclared, None));
    assert!(found.differs.iter().any(|why| why.contains("prompt cache")), "{:?}", found.differs);
    assert!(!setup.runtime().join("self-tests").exists());
}
