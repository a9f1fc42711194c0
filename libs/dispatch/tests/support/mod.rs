//! A scripted engine and a dispatch over it.
#![allow(dead_code, reason = "each test binary uses its part of it")]
#![allow(unused_imports, reason = "each test binary uses its part of it")]

mod engine;
pub(crate) mod life;
mod reading;

use std::sync::Arc;
use std::time::Duration;

use adapter_host::{AdapterHost, Binding, CompletionRequest, EngineRequest, Prompt, Sampling, SoFar};
use dispatch::{Detach, Dispatch, Limits, Metrics, Owner, PoolSpec, Task, TaskSpec};
use registry::{Event, Registry, Up};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wire::config::{FullPolicy, QueueConfig};
use wire::task::{OnInterrupt, Priority};
use wire::{PoolId, ReplicaId, ReplicaKey, TaskId};

pub(crate) use engine::*;
pub(crate) use reading::*;

/// A dispatch with one pool `p`.
pub(crate) struct World {
    pub(crate) registry: Registry,
    pub(crate) host: AdapterHost,
    pub(crate) dispatch: Dispatch,
    pub(crate) shutdown: CancellationToken,
    pub(crate) tracker: TaskTracker,
    pub(crate) metrics: prometheus_client::registry::Registry,
}

pub(crate) fn pool() -> PoolId {
    PoolId::try_new("p").unwrap()
}

pub(crate) fn key(n: u32) -> ReplicaKey {
    ReplicaKey { pool: pool(), replica: ReplicaId::nth(n) }
}

pub(crate) fn owner() -> Owner {
    Owner::Data("one".into())
}

pub(crate) fn spec(prompt: &str) -> TaskSpec {
    TaskSpec {
        task_id: None,
        fingerprint: [0; 32],
        owner: owner(),
        caller: dispatch::CallerId::key("one"),
        tokens_in: None,
        model: "p".to_owned(),
        request: EngineRequest::Completion(CompletionRequest {
            prompt: Prompt::Text(prompt.to_owned()),
            sampling: Sampling { seed: Some(42), ..Sampling::default() },
            cache_prompt: false,
            so_far: SoFar::Nothing,
        }),
        priority: Priority::Interactive,
        deadline: None,
        placement: None,
        detach: Detach::Never,
        on_interrupt: OnInterrupt::Fail,
        transcript: false,
        session: None,
        trace: None,
    }
}

pub(crate) fn batch(prompt: &str) -> TaskSpec {
    TaskSpec { priority: Priority::Batch, ..spec(prompt) }
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(8, FullPolicy::Reject, Limits::default())
    }

    pub(crate) fn with(capacity: u32, full_policy: FullPolicy, limits: Limits) -> Self {
        let pool = PoolSpec {
            id: pool(),
            aliases: vec!["alias".to_owned()],
            model_names: vec![],
            model_ref: String::new(),
            ctx: 2048,
            queue: QueueConfig { capacity, full_policy },
            deterministic: true,
        };
        let (registry, host) = (Registry::default(), AdapterHost::default());
        let (shutdown, tracker) = (CancellationToken::new(), TaskTracker::new());
        let mut metrics = prometheus_client::registry::Registry::default();
        let dispatch = Dispatch::start(
            vec![pool],
            registry.clone(),
            host.clone(),
            limits,
            Metrics::register(&mut metrics),
            shutdown.clone(),
            tracker.clone(),
        );
        Self { registry, host, dispatch, shutdown, tracker, metrics }
    }

    pub(crate) fn up(&self, replica: u32, generation: u64, slots: u32, engine: &Arc<Engine>) {
        self.up_with("digest", replica, generation, slots, engine);
    }

    pub(crate) fn up_with(
        &self,
        digest: &str,
        replica: u32,
        generation: u64,
        slots: u32,
        engine: &Arc<Engine>,
    ) {
        let adapter = Arc::new(Adapter(Arc::clone(engine)));
        self.host.bind(key(replica), Binding { generation, adapter });
        self.registry.apply(Event::Up(Up {
            engine_version: format!("engine-{replica}-{generation}"),
            model_id: "model".to_owned(),
            model_digest: digest.to_owned(),
            ctx: Some(2048),
            ..Up::new(key(replica), generation, slots)
        }));
    }

    pub(crate) fn down(&self, replica: u32, generation: u64) {
        self.registry.apply(Event::Down { key: key(replica), generation, reason: "killed".to_owned() });
    }

    pub(crate) fn submit(&self, spec: TaskSpec) -> Task {
        self.dispatch.submit(spec).unwrap()
    }

    pub(crate) fn free(&self, replica: u32) -> u32 {
        self.registry.snapshot().replicas[&key(replica)].slots_free
    }

    /// Waits until `n` tasks have a slot.
    pub(crate) async fn until_free(&self, replica: u32, slots: u32) {
        let mut changed = self.registry.changed();
        let wait = async {
            while self.free(replica) != slots {
                changed.changed().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(3600), wait).await.expect("the slots come free");
    }

    pub(crate) fn metric(&self, line: &str) -> Option<f64> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.metrics).unwrap();
        text.lines().find_map(|have| have.strip_prefix(line)?.trim().parse().ok())
    }
}

pub(crate) fn id(text: &str) -> TaskId {
    TaskId::try_new(text).unwrap()
}
