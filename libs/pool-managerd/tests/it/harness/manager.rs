//! A running manager, what is asked of it over HTTP, and waiting for what it shows.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use pool_managerd::Running;
use test_harness_e2e_haiku::{Client, Request};
use wire::operation::{OperationAccepted, OperationList};
use wire::pool::PoolList;
use wire::{Handoff, OperationId, OperationState, OperationView, Phase, PoolView, ReplicaView, StepStatus};

use super::{DEADLINE, read_handoff};

/// A running manager and its client.
pub(crate) struct Manager {
    pub(crate) running: Running,
    pub(super) runtime: PathBuf,
}

impl Manager {
    pub(crate) fn request(&self, method: &str, path: &str) -> Request {
        let client = Client::pool_managerd();
        let url = format!("http://{}{path}", self.running.addr());
        client.request(method.parse().unwrap(), url).timeout(DEADLINE)
    }

    async fn view(&self, method: &str, path: &str) -> PoolView {
        let answer = self.request(method, path).bearer_auth(self.running.token()).send().await.unwrap();
        assert!(answer.status().is_success(), "{method} {path}: {}", answer.status());
        answer.json().await.unwrap()
    }

    pub(crate) async fn pools(&self) -> Vec<PoolView> {
        let answer = self.request("GET", "/v2/pools").bearer_auth(self.running.token()).send().await.unwrap();
        answer.json::<PoolList>().await.unwrap().pools
    }

    pub(crate) async fn until_pools(&self, wanted: impl Fn(&[PoolView]) -> bool) {
        let end = Instant::now() + DEADLINE;
        while !wanted(&self.pools().await) {
            assert!(Instant::now() < end, "never came: {:#?}", self.pools().await);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) async fn until_pool(&self, wanted: impl Fn(&PoolView) -> bool) {
        self.until_pools(|pools| pools.iter().any(&wanted)).await;
    }

    pub(crate) async fn pool(&self) -> PoolView {
        self.view("GET", "/v2/pools/p").await
    }

    pub(crate) async fn replica(&self) -> ReplicaView {
        self.pool().await.replicas.remove(0)
    }

    /// Status and description of a step.
    pub(crate) async fn step(&self, id: &str) -> (StepStatus, String) {
        let step = self.pool().await.steps.into_iter().find(|step| step.id == id).expect("the step");
        (step.status, step.description)
    }

    pub(crate) async fn preload(&self) -> PoolView {
        self.view("POST", "/v2/pools/p/preload").await
    }

    pub(crate) async fn stop(&self) -> OperationId {
        self.begin("stop", "").await
    }

    /// Begins an operation on the pool.
    pub(crate) async fn begin(&self, what: &str, body: &str) -> OperationId {
        let (status, answer) = self.ask(what, body).await;
        assert_eq!(status, 202, "{what}: {answer}");
        serde_json::from_value::<OperationAccepted>(answer).unwrap().operation_id
    }

    /// Asks for an operation on the pool: the status and the answer, whatever it is.
    pub(crate) async fn ask(&self, what: &str, body: &str) -> (u16, serde_json::Value) {
        let request = self.request("POST", &format!("/v2/pools/p/{what}"));
        let request = request.bearer_auth(self.running.token()).body(body.to_owned());
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// Waits until no operation runs.
    pub(crate) async fn idle(&self) {
        let request = || self.request("GET", "/v2/operations").bearer_auth(self.running.token()).send();
        let list: OperationList = request().await.unwrap().json().await.unwrap();
        for operation in list.operations {
            self.ended(&operation.id).await;
        }
    }

    pub(crate) async fn operation(&self, id: &OperationId) -> OperationView {
        let request = self.request("GET", &format!("/v2/operations/{id}"));
        request.bearer_auth(self.running.token()).send().await.unwrap().json().await.unwrap()
    }

    /// Waits until an operation has ended, however it did.
    pub(crate) async fn ended(&self, id: &OperationId) -> OperationView {
        let end = Instant::now() + DEADLINE;
        loop {
            let view = self.operation(id).await;
            if view.state != OperationState::Running {
                return view;
            }
            assert!(Instant::now() < end, "never ended: {view:#?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) async fn metrics(&self) -> String {
        let answer = self.request("GET", "/metrics").bearer_auth(self.running.token()).send().await.unwrap();
        answer.text().await.unwrap()
    }

    pub(crate) async fn until(&self, wanted: impl Fn(&ReplicaView) -> bool) -> ReplicaView {
        let end = Instant::now() + DEADLINE;
        loop {
            let replica = self.replica().await;
            if wanted(&replica) {
                return replica;
            }
            assert!(Instant::now() < end, "never came: {replica:#?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) async fn phase(&self, phase: Phase) -> ReplicaView {
        self.until(|r| r.phase == phase).await
    }

    /// Waits until every replica stands there.
    pub(crate) async fn until_all(&self, phase: Phase) {
        let end = Instant::now() + DEADLINE;
        while self.pool().await.replicas.iter().any(|r| r.phase != phase) {
            assert!(Instant::now() < end, "not all became {phase:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until it is ready, and checks that readiness and handoff agree.
    pub(crate) async fn ready(&self) -> Handoff {
        let replica = self.phase(Phase::Ready).await;
        let handoff = read_handoff(&self.runtime).expect("a ready replica is published");
        assert_eq!(Some(handoff.url.clone()), replica.url);
        assert_eq!(handoff.generation, replica.generation);
        handoff
    }
}
