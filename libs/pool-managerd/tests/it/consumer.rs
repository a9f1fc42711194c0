//! The example of a client: what it understood is what the contract says.

use wire::{OperationState, Phase};

use crate::harness::setup;

#[path = "../../examples/drain_a_pool.rs"]
#[allow(dead_code, unreachable_pub, reason = "it is a program of its own, too")]
mod example;

/// POOLD-DRAIN-001, POOLD-API-001
#[tokio::test]
async fn the_example_of_a_client_drains_a_pool_and_a_refusal_says_why() {
    let setup = setup();
    let manager = setup.start().await;
    manager.ready().await;
    let base = format!("http://{}", manager.running.addr());
    let ended = example::drain(&base, "p", manager.running.token(), |_| ()).await.unwrap();
    let operation = serde_json::from_value::<wire::OperationId>(ended["id"].clone()).unwrap();
    let view = manager.operation(&operation).await;
    assert_eq!(view.state, OperationState::Succeeded);
    assert_eq!(serde_json::to_value(&view).unwrap(), ended);
    assert_ne!(manager.replica().await.phase, Phase::Ready);
    let refused = example::drain(&base, "nobody", manager.running.token(), |_| ()).await.unwrap_err();
    assert!(refused.to_string().contains("404 \"NOT_FOUND\""), "{refused}");
    let refused = example::drain(&base, "p", "wrong", |_| ()).await.unwrap_err();
    assert!(refused.to_string().contains("401 \"BAD_TOKEN\""), "{refused}");
    manager.running.shutdown().await;
}
