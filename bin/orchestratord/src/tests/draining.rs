//! A replica that drains: nothing new reaches it, what runs on it goes on, and what is cut off says so.

use super::*;

fn slow() -> RunningStub {
    stub_with(|faults| faults.token = Duration::from_millis(20))
}

fn key() -> wire::ReplicaKey {
    wire::ReplicaKey { pool: "p".parse().unwrap(), replica: wire::ReplicaId::nth(0) }
}

impl Orchestrator {
    async fn state_of(&self, task: &str) -> String {
        self.get(&format!("/v2/tasks/{task}")).await["state"].as_str().unwrap().to_owned()
    }

    async fn until_tokens(&self, stub: &RunningStub) {
        until(async || stub.stats().tokens > 2).await;
    }
}

/// ORCHD-DRAIN-001
#[tokio::test(flavor = "multi_thread")]
async fn a_draining_replica_finishes_what_it_has_and_the_next_task_waits_for_it_to_be_ready_again() {
    let orchestrator = Orchestrator::start().await;
    let stub = slow();
    orchestrator.publish(&stub, "p", 1);
    orchestrator.until_ready("p", true).await;
    let running = orchestrator.submit(json!({"max_tokens": 60})).await;
    orchestrator.until_tokens(&stub).await;
    orchestrator.publish_as(&stub, "p", 1, "draining");
    orchestrator.until_ready("p", false).await;
    let health = orchestrator.get("/v2/pools/p/health").await;
    assert_eq!((&health["draining"], &health["live"]), (&json!(true), &json!(true)), "{health}");
    let waiting = orchestrator.submit(json!({})).await;
    assert_eq!(orchestrator.events(&running, None).await.last().unwrap().1, "end", "what ran was cut off");
    assert_eq!(orchestrator.state_of(&waiting).await, "queued", "the gate was not closed");
    orchestrator.publish(&stub, "p", 1);
    assert_eq!(orchestrator.events(&waiting, None).await.last().unwrap().1, "end");
    orchestrator.stop().await;
}

/// ORCHD-DRAIN-001
#[tokio::test(flavor = "multi_thread")]
async fn what_a_drain_cuts_off_ends_with_pool_draining() {
    let orchestrator = Orchestrator::start().await;
    let stub = slow();
    orchestrator.publish(&stub, "p", 1);
    orchestrator.until_ready("p", true).await;
    let task = orchestrator.submit(json!({"max_tokens": 1500})).await;
    orchestrator.until_tokens(&stub).await;
    orchestrator.publish_as(&stub, "p", 1, "draining");
    orchestrator.until_ready("p", false).await;
    orchestrator.handoffs.withdraw(&key()).unwrap();
    let events = orchestrator.events(&task, None).await;
    let (_, event, data) = events.last().unwrap();
    assert_eq!((event.as_str(), &data["code"]), ("error", &json!("POOL_DRAINING")), "{data}");
    assert_eq!(data["retriable"], true);
    orchestrator.stop().await;
}

/// ORCHD-DRAIN-002
#[tokio::test(flavor = "multi_thread")]
async fn a_new_life_takes_over_while_the_old_one_finishes_what_it_has() {
    let orchestrator = Orchestrator::start().await;
    let (old, new) = (slow(), stub());
    orchestrator.publish(&old, "p", 1);
    orchestrator.until_ready("p", true).await;
    let on_old = orchestrator.submit(json!({"max_tokens": 100})).await;
    orchestrator.until_tokens(&old).await;
    orchestrator.publish(&new, "p", 2);
    let on_new = orchestrator.submit(json!({})).await;
    assert_eq!(orchestrator.events(&on_new, None).await.last().unwrap().1, "end");
    assert!(new.stats().tokens > 0, "the new life serves");
    assert_eq!(orchestrator.state_of(&on_old).await, "running");
    let events = orchestrator.events(&on_old, None).await;
    assert_eq!(events.last().unwrap().1, "end", "{events:?}");
    assert_eq!(events.iter().filter(|(_, event, _)| event == "token").count(), 100, "and whole");
    orchestrator.stop().await;
}

/// ORCHD-AUTOBIND-003
#[tokio::test(flavor = "multi_thread")]
async fn a_withdrawn_replica_leaves_the_registry() {
    let orchestrator = Orchestrator::start().await;
    let stub = stub();
    orchestrator.publish(&stub, "p", 1);
    orchestrator.until_ready("p", true).await;
    assert_eq!(orchestrator.running.state().registry.snapshot().replicas.len(), 1);
    orchestrator.handoffs.withdraw(&key()).unwrap();
    until(async || orchestrator.running.state().registry.snapshot().replicas.is_empty()).await;
    orchestrator.stop().await;
}
