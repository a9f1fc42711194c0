//! A life from its start to its publication; its watch is in `watch`. Returns only with what ended it, and
//! can be dropped at any point: it owns no process. A publication that has begun goes on, though;
//! [`Serving::settled`] waits for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::SemaphorePermit;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wire::config::{PoolConfig, PoolKind};
use wire::handoff::HANDOFF_SCHEMA_VERSION;
use wire::{
    Determinism, Handoff, HandoffModel, HandoffState, Phase, PreparedEngine, ReplicaKey, StepStatus, rfc3339,
};

use crate::board::Seat;
use crate::classify::Cause;
use crate::determinism::examine;
use crate::engine_http::{EngineClient, Health, Props};
use crate::launch::Life;
use crate::loading::LoadingBudget;
use crate::loss::{Fault, Loss};
use crate::replica::with_causes;
use crate::shared::Shared;
use crate::watch::housekeeping;

/// One life while it lives.
pub(crate) struct Serving {
    pub(crate) shared: Arc<Shared>,
    pub(crate) seat: Seat,
    pub(crate) key: ReplicaKey,
    pub(crate) pool: Arc<PoolConfig>,
    begun: Instant,
    /// Since when it is published.
    ready: Option<Instant>,
    /// Set when it is published.
    is_ready: CancellationToken,
    /// Writes record and claim on a thread that nothing interrupts.
    publishing: Option<JoinHandle<Result<(), String>>>,
}

impl Serving {
    pub(crate) fn new(shared: Arc<Shared>, seat: Seat, key: ReplicaKey, pool: Arc<PoolConfig>) -> Self {
        let (begun, is_ready) = (Instant::now(), CancellationToken::new());
        Self { shared, seat, key, pool, begun, ready: None, is_ready, publishing: None }
    }

    /// How long it has served; `None` when it never did.
    pub(crate) fn served(&self) -> Option<Duration> {
        self.ready.map(|since| since.elapsed())
    }

    /// Resolves when it is published.
    pub(crate) fn is_ready(&self) -> CancellationToken {
        self.is_ready.clone()
    }

    fn set_ready(&mut self) {
        self.ready = Some(Instant::now());
        self.is_ready.cancel();
    }

    /// An engine that has taken the place of another, proven and published by whoever started it.
    pub(crate) fn took_over(&mut self, life: &Life) {
        self.shared.metrics.loaded(&self.key, self.begun.elapsed());
        self.shows(life);
        self.announce(life);
        self.set_ready();
    }

    /// From a started process to a claim that may be published.
    pub(crate) async fn prove(&self, life: &mut Life) -> Result<(), Fault> {
        let client = EngineClient::new(life.record.port, life.api_key.clone());
        let props = tokio::select! {
            biased;
            exit = life.engine.exited() => return Err(Fault::Exited(exit)),
            props = self.startup(life, &client) => props?,
            never = housekeeping(&self.shared, &self.key, life) => match never {},
        };
        let device_mask = life.record.device_mask.clone();
        let on_its_cards = PreparedEngine { device_mask, ..life.record.prepared.clone() };
        let examined = tokio::select! {
            biased;
            exit = life.engine.exited() => return Err(Fault::Exited(exit)),
            examined = examine(&self.shared, &self.pool, &on_its_cards, &client) => examined,
            never = housekeeping(&self.shared, &self.key, life) => match never {},
        };
        life.record.handoff = Some(self.claim(life, props, examined));
        Ok(())
    }

    /// Waits for a publication that was under way when [`run`](Self::run) was dropped. Whoever withdraws
    /// the claim before this may find it there again.
    pub(crate) async fn settled(&mut self) {
        if let Some(publishing) = self.publishing.take() {
            let _whatever_it_came_to = publishing.await;
        }
    }

    /// Probes, publishes and watches. `loading` is given back when the engine has loaded. Once it has
    /// been published, another call only watches.
    pub(crate) async fn run(&mut self, life: &mut Life, loading: Option<SemaphorePermit<'_>>) -> Fault {
        let client = EngineClient::new(life.record.port, life.api_key.clone());
        if self.ready.is_some() {
            return self.watch(life, &client, true).await;
        }
        self.shows(life);
        let pid = life.engine.pid();
        let adopted = life.record.handoff.is_some();
        if let Err(fault) = self.become_ready(life, &client).await {
            return fault;
        }
        drop(loading);
        if adopted {
            self.shared.metrics.adopted(&self.key);
            tracing::info!(replica = %self.key, pid, "adopted an engine that outlived its manager");
        } else {
            self.shared.metrics.loaded(&self.key, self.begun.elapsed());
        }
        self.set_ready();
        self.watch(life, &client, adopted).await
    }

    async fn become_ready(&mut self, life: &mut Life, client: &EngineClient) -> Result<(), Fault> {
        if life.record.handoff.is_none() {
            self.seat.warmup(StepStatus::Running, "starting the engine and loading the model");
            self.prove(life).await?;
        } else if let Health::Down(last) = self.still_healthy(client).await {
            return Err(Fault::unresponsive(life.engine.pid(), self.shared.timings.liveness_fall, last));
        }
        let (shared, key) = (Arc::clone(&self.shared), self.key.clone());
        tokio::select! {
            biased;
            exit = life.engine.exited() => Err(Fault::Exited(exit)),
            () = self.publish(life) => Ok(()),
            never = housekeeping(&shared, &key, life) => match never {},
        }
    }

    /// From a started process to one real token, vector or score.
    async fn startup(&self, life: &Life, client: &EngineClient) -> Result<Props, Fault> {
        self.loaded(life, client).await?;
        let timings = &self.shared.timings;
        let props = async {
            let props = client.props(timings.canary_timeout).await;
            props.map_err(|why| Fault::Canary(format!("/props: {why}")))
        };
        let token = async {
            match self.pool.kind {
                PoolKind::Chat => client.complete_one_token(timings.canary_timeout).await,
                PoolKind::Embedding => client.embed_one_text(timings.canary_timeout).await,
                PoolKind::Rerank => client.rank_one_text(timings.canary_timeout).await,
            }
            .map_err(Fault::Canary)
        };
        let answers = async { tokio::try_join!(props, token).map(|(props, ())| props) };
        let (mut answers, mut ours) = (std::pin::pin!(answers), std::pin::pin!(listens(life)));
        // What a stranger's socket answers does not matter, not even as an error.
        tokio::select! {
            ours = &mut ours => { ours?; answers.await }
            answers = &mut answers => { ours.await?; answers }
        }
    }

    /// Waits until the engine says that its model is loaded.
    async fn loaded(&self, life: &Life, client: &EngineClient) -> Result<(), Fault> {
        let timings = &self.shared.timings;
        let mut budget = LoadingBudget::new(timings, life.model_bytes);
        loop {
            let last = match client.health(timings.liveness_timeout).await {
                Health::Ready => return Ok(()),
                Health::Loading => {
                    budget.loading(self.begun.elapsed(), child::loaded_bytes(life.engine.pid()));
                    "it was still loading its model".to_owned()
                }
                Health::Down(why) => why,
            };
            if budget.is_over(self.begun.elapsed()) {
                return Err(Fault::Slow { budget: budget.allowed(), last });
            }
            // A 32nd of the time it has taken so far: nobody is kept waiting by the looking for more
            // than 3 % of it, and a large model is not pestered.
            let pause = (self.begun.elapsed() / 32).clamp(timings.probe_first, timings.probe_slowest);
            tokio::time::sleep(pause).await;
        }
    }

    /// An adopted engine gets as many looks as a serving one has.
    async fn still_healthy(&self, client: &EngineClient) -> Health {
        let timings = &self.shared.timings;
        let mut last = Health::Down("it was not asked".to_owned());
        for _ in 0..timings.liveness_fall.max(1) {
            last = client.health(timings.liveness_timeout).await;
            if last == Health::Ready {
                break;
            }
            tokio::time::sleep(timings.probe_slowest).await;
        }
        if last == Health::Loading { Health::Down("it loads again".to_owned()) } else { last }
    }

    fn claim(&self, life: &Life, props: Props, determinism: Determinism) -> Handoff {
        let prepared = &life.record.prepared;
        let from_path = prepared.engine_version.starts_with("llamacpp-path-");
        let stem = || prepared.model_path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Handoff {
            schema_version: HANDOFF_SCHEMA_VERSION,
            engine: "llamacpp".to_owned(),
            engine_version: prepared.engine_version.clone(),
            engine_digest: prepared.engine_digest.clone(),
            build_flags: prepared.build_flags.clone(),
            provisioning_mode: if from_path { "path" } else { "source" }.to_owned(),
            url: life.url(),
            pool_id: self.key.pool.clone(),
            replica_id: self.key.replica.clone(),
            model: HandoffModel {
                id: life.record.model.as_ref().map_or_else(stem, |m| m.id.clone()),
                path: prepared.model_path.display().to_string(),
                digest: prepared.model_digest.clone(),
            },
            flags: prepared.flags.clone(),
            generation: life.record.generation,
            state: HandoffState::Ready,
            pid: Some(life.engine.pid()),
            api_key: Some(life.api_key.clone()),
            slots_total: props.slots.unwrap_or(prepared.slots),
            ctx: props.ctx.or(Some(prepared.ctx)),
            device_mask: life.record.device_mask.clone(),
            started_at: Some(rfc3339(std::time::SystemTime::now())),
            load_ms: u64::try_from(self.begun.elapsed().as_millis()).ok(),
            determinism: Some(determinism),
        }
    }

    /// Record first, then the claim. A disk that is full is waited for; the engine stays loaded.
    async fn publish(&mut self, life: &Life) {
        loop {
            let (shared, record) = (Arc::clone(&self.shared), life.record.clone());
            let written = self.publishing.insert(tokio::task::spawn_blocking(move || {
                shared.run.write(&record).map_err(|e| with_causes(&e))?;
                let handoff = record.handoff.as_ref();
                handoff.map_or(Ok(()), |h| shared.handoffs.publish(h).map_err(|e| with_causes(&e)))
            }));
            let outcome = written.await;
            self.publishing = None;
            let problem = match outcome {
                Ok(Ok(())) => break,
                Ok(Err(problem)) => problem,
                Err(join) => join.to_string(),
            };
            tracing::error!(replica = %self.key, problem, "the engine is ready but cannot be published yet");
            let error =
                Loss::plain(Cause::Launch, format!("the engine is ready but cannot be published: {problem}"));
            self.seat.update(|r| r.last_error = Some(error.into_wire()));
            tokio::time::sleep(self.shared.timings.disk_retry).await;
        }
        self.announce(life);
    }

    /// Shows what was started.
    fn shows(&self, life: &Life) {
        let (version, pid, url) =
            (life.record.prepared.engine_version.clone(), life.engine.pid(), life.url());
        let (generation, device_mask) = (life.record.generation, life.record.device_mask.clone());
        self.seat.update(|r| {
            r.device_mask = device_mask;
            r.phase(Phase::Starting);
            r.engine_version = Some(version);
            r.pid = Some(pid);
            r.url = Some(url);
            r.generation = generation;
        });
    }

    /// Shows that it is published.
    fn announce(&self, life: &Life) {
        self.shared.metrics.published(&self.key);
        self.seat.warmup(StepStatus::Completed, "the engine is ready");
        if let Some(claim) = &life.claim {
            claim.loaded(life.engine.pid());
        }
        let handoff = life.record.handoff.as_ref();
        let slots = handoff.map_or(0, |h| h.slots_total);
        let determinism = handoff.and_then(|h| h.determinism.clone());
        let load_ms = handoff.and_then(|h| h.load_ms);
        self.seat.set_model(life.record.model.clone());
        self.seat.update(|r| {
            r.phase(Phase::Ready);
            r.slots_total = slots;
            r.determinism = determinism;
            r.load_ms = load_ms;
        });
        tracing::info!(
            replica = %self.key, pid = life.engine.pid(), url = life.url(), generation = life.record.generation,
            "ready"
        );
    }
}

/// Whether the socket that answers is this engine's.
async fn listens(life: &Life) -> Result<(), Fault> {
    let (pid, port) = (life.engine.pid(), life.record.port);
    let unseen =
        |why: &dyn std::fmt::Display| Fault::Canary(format!("cannot see whose socket answers: {why}"));
    match tokio::task::spawn_blocking(move || child::listens_on(pid, port)).await {
        Ok(Ok(true)) => Ok(()),
        Ok(Ok(false)) => Err(Fault::ForeignSocket { port }),
        Ok(Err(error)) => Err(unseen(&error)),
        Err(join) => Err(unseen(&join)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use child::{Adopted, ProcessIdentity};
    use tokio::sync::{Mutex, Semaphore};
    use wire::config::PoolConfig;
    use wire::{ModelRecord, PoolView, PreparedEngine, ReplicaId};

    use super::*;
    use crate::board::Board;
    use crate::engine::Engine;
    use crate::engine_log::EngineLog;
    use crate::metrics::Metrics;
    use crate::prepare::Nothing;
    use crate::record::{Record, RunDir};
    use crate::{InheritedEnv, Timings};

    fn shared(dir: &std::path::Path) -> Arc<Shared> {
        Arc::new(Shared {
            run: RunDir::open(dir).unwrap(),
            handoffs: handoff::HandoffDir::open(dir.join("engines")).unwrap(),
            inherited: InheritedEnv::default(),
            preparer: Arc::new(Nothing),
            provisioning: Mutex::new(()),
            loading: Semaphore::new(1),
            memory: crate::available_memory,
            ledger: crate::admission::Ledger::new(crate::available_memory),
            cards: crate::cards::Cards::new(Arc::new(|| devices::Inventory::NoCard)),
            self_tests: crate::determinism::Kept::in_dir(&dir.join("self-tests")),
            timings: Timings::default(),
            metrics: Metrics::new(),
            hurry: CancellationToken::new(),
        })
    }

    /// A life whose process is this one; its flags are long, so that writing them takes its time.
    fn life(pool: &PoolConfig, dir: &std::path::Path) -> Life {
        let prepared = PreparedEngine {
            binary_path: "/bin/true".into(),
            flags: vec!["x".repeat(1 << 20); 16],
            port: 0,
            host: "127.0.0.1".to_owned(),
            model_path: "/m".into(),
            engine_version: "llamacpp-path-0".to_owned(),
            pool_id: pool.id.clone(),
            replica_id: ReplicaId::nth(0),
            device_mask: None,
            memory: None,
            engine_digest: String::new(),
            build_flags: Vec::new(),
            model_digest: String::new(),
            ctx: 1,
            slots: 1,
            env: BTreeMap::new(),
        };
        let own = ProcessIdentity::of(std::process::id()).unwrap();
        Life {
            engine: Engine::Adopted(Adopted::open(&own).unwrap()),
            record: Record::intent(pool, &prepared, None::<ModelRecord>, 1, 1),
            api_key: String::new(),
            log: EngineLog::existing(dir.join("log"), 0),
            model_bytes: 0,
            memory_kills: None,
            claim: None,
        }
    }

    #[tokio::test]
    async fn a_publication_that_was_given_up_is_over_before_the_claim_is_withdrawn() {
        let dir = tempfile::tempdir().unwrap();
        let pool = Arc::new(PoolConfig::haiku());
        let board = Arc::new(Board::new());
        board.add(&pool);
        let key = ReplicaKey { pool: pool.id.clone(), replica: ReplicaId::nth(0) };
        let seat = board.seat(&pool.id, &ReplicaId::nth(0)).unwrap();
        let mut life = life(&pool, dir.path());
        let mut serving = Serving::new(shared(dir.path()), seat, key.clone(), Arc::clone(&pool));
        let examined = Determinism {
            result: wire::SelfTest::NotDeclared,
            device: String::new(),
            tested_at: None,
            tokens_sha256: None,
            differs: Vec::new(),
        };
        life.record.handoff = Some(serving.claim(&life, Props { slots: None, ctx: None }, examined));
        let claim = dir.path().join("engines").join(format!("{}.{}.json", key.pool, key.replica));
        {
            let mut publish = std::pin::pin!(serving.publish(&life));
            assert!(futures_util::poll!(publish.as_mut()).is_pending());
            assert!(!claim.exists(), "it was given up half-way");
        }
        serving.settled().await;
        assert!(claim.exists(), "nothing is written after this any more");
        let views: Vec<PoolView> = board.list().pools;
        assert_ne!(views[0].replicas[0].phase, Phase::Ready);
    }
}
