//! A pool-managerd over stub-llama in a directory of its own, and ways to wait for what it does.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pool_managerd::{
    App, AppConfig, AvailableMemory, Cancel, Discover, InheritedEnv, Inventory, Prepare, PrepareError,
    Progress, RestartPolicy, Running, StartError, Timings, Token,
};
use provisioners_model_provisioner::Catalog;
use sha2::{Digest as _, Sha256};
use test_harness_e2e_haiku::{Client, Request};
use wire::config::PoolConfig;
use wire::operation::{OperationAccepted, OperationList};
use wire::pool::{PoolList, ReplicaError};
use wire::{
    Device, DeviceUser, Handoff, MemoryEstimate, OperationId, OperationState, OperationView, Phase, PoolId,
    PoolView, PreparedEngine, ReplicaId, ReplicaView, StepStatus,
};

/// For things that must happen some time; what must happen soon has its own limit.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// Prepares the stub with the fault switches that are set now.
#[derive(Default)]
pub(crate) struct StubPreparer {
    faults: Mutex<BTreeMap<String, String>>,
    failure: Mutex<Option<PrepareError>>,
    binary: Mutex<Option<PathBuf>>,
    pub(crate) calls: AtomicU32,
    /// Cards and weights in bytes of what is prepared.
    needs: Mutex<Option<(Option<String>, u64)>>,
    /// The number of the first preparation with these switches instead.
    later: Mutex<Option<(u32, BTreeMap<String, String>)>>,
    /// The preparation that fails, once, counted from when it is set.
    fails_at: Mutex<Option<u32>>,
    /// Engines of its store.
    engines: Mutex<BTreeMap<String, PathBuf>>,
    /// What it was asked to prepare last.
    pub(crate) asked: Mutex<Option<PoolConfig>>,
    /// What its catalog holds.
    models: Mutex<Option<Catalog>>,
}

impl StubPreparer {
    pub(crate) fn faults(&self, faults: &[(&str, &str)]) {
        *self.later.lock().unwrap() = None;
        *self.faults.lock().unwrap() = switches(faults);
    }

    /// After so many more preparations.
    pub(crate) fn faults_after(&self, preparations: u32, faults: &[(&str, &str)]) {
        let first = self.calls.load(Ordering::SeqCst) + preparations;
        *self.later.lock().unwrap() = Some((first, switches(faults)));
    }

    /// Another binary than the stub, for the next preparation.
    pub(crate) fn binary_once(&self, binary: &Path) {
        *self.binary.lock().unwrap() = Some(binary.to_owned());
    }

    /// Puts an engine into its store.
    pub(crate) fn stored(&self, digest: &str, binary: &Path) {
        self.engines.lock().unwrap().insert(digest.to_owned(), binary.to_owned());
    }

    /// So many preparations succeed, the next one fails, and those after it succeed again.
    pub(crate) fn fail_after(&self, successes: u32) {
        *self.fails_at.lock().unwrap() = Some(self.calls.load(Ordering::SeqCst) + successes);
    }

    /// What is prepared from now on is for these cards (or none), and has so many bytes of weights.
    pub(crate) fn needs(&self, cards: Option<&str>, weights: u64) {
        *self.needs.lock().unwrap() = Some((cards.map(str::to_owned), weights));
    }

    pub(crate) fn failure(&self, failure: Option<PrepareError>) {
        *self.failure.lock().unwrap() = failure;
    }
}

fn switches(faults: &[(&str, &str)]) -> BTreeMap<String, String> {
    faults.iter().map(|(name, value)| (format!("STUB_{name}"), (*value).to_owned())).collect()
}

impl Prepare for StubPreparer {
    fn trusts(&self, model: &str) -> Result<(), String> {
        let theirs = model.starts_with("hf:theirs/");
        if theirs { Err("it is not from hf:ours/".to_owned()) } else { Ok(()) }
    }

    fn catalog(&self) -> Option<Catalog> {
        self.models.lock().unwrap().clone()
    }

    fn engine(&self, digest: &str) -> Option<PathBuf> {
        self.engines.lock().unwrap().get(digest).cloned()
    }

    fn prepare(
        &self,
        pool: &PoolConfig,
        replica: &ReplicaId,
        progress: &Progress,
        _cancel: &Cancel,
    ) -> Result<PreparedEngine, PrepareError> {
        *self.asked.lock().unwrap() = Some(pool.clone());
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        let later = self.later.lock().unwrap().clone().filter(|(first, _)| call >= *first);
        let env = later.map_or_else(|| self.faults.lock().unwrap().clone(), |(_, faults)| faults);
        if self.fails_at.lock().unwrap().take_if(|at| *at == call).is_some() {
            let message = "this one fails".to_owned();
            return Err(PrepareError { message, remedy: None, may_heal: false });
        }
        if let Some(failure) = self.failure.lock().unwrap().clone() {
            progress.step(step(pool, "it failed", StepStatus::Failed));
            return Err(failure);
        }
        progress.step(step(pool, "the stub is there", StepStatus::Completed));
        let other = self.binary.lock().unwrap().take();
        let (device_mask, weights) = self.needs.lock().unwrap().clone().unwrap_or_default();
        let memory = (weights > 0).then_some(MemoryEstimate {
            weights_bytes: weights,
            kv_bytes_per_slot: 1 << 29,
            kv_bytes: 1 << 30,
            compute_bytes: 1 << 29,
        });
        Ok(PreparedEngine {
            binary_path: other.unwrap_or_else(|| stub_llama::binary().expect("stub-llama builds")),
            flags: ["--model", "/models/stub.gguf", "--ctx-size", "1024", "--parallel", "2"]
                .map(str::to_owned)
                .into(),
            port: 0,
            host: "127.0.0.1".to_owned(),
            model_path: PathBuf::from("/models/stub.gguf"),
            engine_version: "llamacpp-path-0123456789ab".to_owned(),
            pool_id: pool.id.clone(),
            replica_id: replica.clone(),
            device_mask,
            memory,
            engine_digest: "e".repeat(64),
            build_flags: Vec::new(),
            model_digest: "d".repeat(64),
            ctx: 512,
            slots: 2,
            env,
        })
    }
}

/// Cards as a test wants them.
#[derive(Default)]
pub(crate) struct FakeCards {
    cards: Mutex<Vec<Device>>,
    /// Every engine of this runtime directory has so much of the first card, for as long as it lives.
    used_by: Mutex<Option<(PathBuf, u64)>>,
}

impl FakeCards {
    pub(crate) fn set(&self, cards: Vec<Device>) {
        *self.cards.lock().unwrap() = cards;
    }

    pub(crate) fn used_by_engines_of(&self, runtime: &Path, each: u64) {
        *self.used_by.lock().unwrap() = Some((runtime.to_owned(), each));
    }

    fn as_they_are(&self) -> Vec<Device> {
        let mut cards = self.cards.lock().unwrap().clone();
        if let Some((runtime, each)) = self.used_by.lock().unwrap().as_ref()
            && runtime.join("run").exists()
        {
            for pid in engines_of(runtime) {
                let user = DeviceUser { pid: Some(pid), used_bytes: Some(*each), ..DeviceUser::default() };
                cards[0].users.push(user);
                cards[0].vram_free_bytes = cards[0].vram_free_bytes.saturating_sub(*each);
            }
        }
        cards
    }
}

impl Discover for FakeCards {
    fn look(&self, _stop: &dyn Fn() -> bool) -> Inventory {
        match self.as_they_are() {
            none if none.is_empty() => Inventory::NoCard,
            cards => Inventory::Cards(cards),
        }
    }
}

fn step(pool: &PoolConfig, description: &str, status: StepStatus) -> wire::PreparationStep {
    wire::PreparationStep {
        id: format!("{}/engine", pool.id),
        kind: wire::StepKind::EngineProvision,
        description: description.to_owned(),
        status,
        bytes_done: None,
        bytes_total: None,
        estimated_ms: None,
    }
}

/// Everything a test starts a manager from. The directory outlives managers.
pub(crate) struct Setup {
    dir: tempfile::TempDir,
    pub(crate) pool: PoolConfig,
    pub(crate) preparer: Arc<StubPreparer>,
    pub(crate) timings: Timings,
    pub(crate) loading_at_once: u32,
    pub(crate) memory: AvailableMemory,
    pub(crate) cards: Arc<FakeCards>,
}

pub(crate) fn setup() -> Setup {
    // Built before any deadline begins: the first test after a change may wait for the compiler.
    stub_llama::binary().expect("stub-llama builds");
    // What a test that fails shows; the first one sets it up for all.
    let log = tracing_subscriber::fmt().with_test_writer().with_ansi(false);
    let _set_up_before = log.with_max_level(tracing::Level::DEBUG).try_init();
    let ms = Duration::from_millis;
    let timings = Timings {
        probe_first: ms(5),
        probe_slowest: ms(20),
        startup_base: Duration::from_secs(20),
        canary_timeout: Duration::from_secs(10),
        liveness_period: ms(50),
        liveness_timeout: ms(1000),
        liveness_fall: 3,
        drain_settle: ms(100),
        drain_poll: ms(10),
        stop_grace: ms(300),
        disk_retry: ms(50),
        provisioning_pauses: vec![ms(20), ms(300_000)],
        restart: RestartPolicy {
            pauses: vec![ms(0), ms(10), ms(20)],
            open_after: 4,
            trials: vec![Duration::from_secs(300)],
            stable_after: Duration::from_mins(10),
        },
        ..Timings::default()
    };
    Setup {
        dir: tempfile::tempdir().unwrap(),
        pool: PoolConfig::new(PoolId::try_new("p").unwrap(), "builtin:stub"),
        preparer: Arc::default(),
        timings,
        loading_at_once: 2,
        memory: || Some(1 << 40),
        cards: Arc::default(),
    }
}

impl Setup {
    pub(crate) fn with_faults(self, faults: &[(&str, &str)]) -> Self {
        self.preparer.faults(faults);
        self
    }

    /// Puts a model into the catalog, as a fetch leaves it; its digest.
    pub(crate) fn fetched(&self, name: &str, bytes: &[u8]) -> String {
        let cache = self.dir.path().join("cache");
        let sha256: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        let dir = cache.join("models").join(&sha256);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join(name), bytes).unwrap();
        let manifest = serde_json::json!({
            "reference": format!("https://example.org/{name}"), "url": format!("https://example.org/{name}"),
            "file": name, "sha256": sha256, "size_bytes": bytes.len(), "trust": "verified",
            "fetched_at_unix_s": 1_700_000_000,
        });
        std::fs::write(dir.join("manifest.json"), manifest.to_string()).unwrap();
        *self.preparer.models.lock().unwrap() = Some(Catalog::new(&cache));
        sha256
    }

    pub(crate) fn runtime(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn config(&self) -> AppConfig {
        AppConfig {
            runtime_dir: self.runtime().to_owned(),
            pools: vec![self.pool.clone()],
            holder: None,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            token: Token::generate().unwrap(),
            preparer: Arc::clone(&self.preparer) as Arc<dyn Prepare>,
            inherited: InheritedEnv::default(),
            memory: self.memory,
            self_tests: self.runtime().join("self-tests"),
            cards: Arc::clone(&self.cards) as Arc<dyn Discover>,
            loading_at_once: self.loading_at_once,
            timings: self.timings.clone(),
        }
    }

    pub(crate) async fn try_start(&self) -> Result<Running, StartError> {
        App::start(self.config()).await
    }

    pub(crate) async fn start(&self) -> Manager {
        Manager { running: self.try_start().await.unwrap(), runtime: self.runtime().to_owned() }
    }

    pub(crate) fn handoff(&self) -> Option<Handoff> {
        read_handoff(self.runtime())
    }
}

/// Engines outlive their manager, also that of a failed test.
impl Drop for Setup {
    fn drop(&mut self) {
        let _ended = NoEngineLeft(self.runtime().to_owned());
    }
}

/// Ends every engine of a runtime directory when it is dropped.
pub(crate) struct NoEngineLeft(pub(crate) PathBuf);

impl Drop for NoEngineLeft {
    fn drop(&mut self) {
        let Ok(run) = std::fs::canonicalize(self.0.join("run")) else { return };
        for process in child::processes_with("LLORCH_RUN_DIR", run.to_str().unwrap_or_default()) {
            if let Some(spawn_id) = &process.identity().spawn_id {
                child::sweep(spawn_id);
            }
        }
    }
}

fn read_handoff(runtime: &Path) -> Option<Handoff> {
    let text = std::fs::read(runtime.join("engines/p.r0.json")).ok()?;
    Some(serde_json::from_slice(&text).unwrap())
}

/// A client of engines; what the manager answers is held against its contract.
pub(crate) fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// A running manager and its client.
pub(crate) struct Manager {
    pub(crate) running: Running,
    runtime: PathBuf,
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

/// The last error of a replica that has one.
pub(crate) fn error(replica: &ReplicaView) -> &ReplicaError {
    replica.last_error.as_ref().expect("a last error")
}

/// Polls, with a limit that is part of what is required.
pub(crate) async fn within(limit: Duration, what: &str, reached: impl Fn() -> bool) {
    let begun = Instant::now();
    while !reached() {
        assert!(begun.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub(crate) fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// Living processes of this manager's engines, found as the manager would find them.
pub(crate) fn engines_of(runtime: &Path) -> Vec<u32> {
    let run = std::fs::canonicalize(runtime.join("run")).unwrap();
    child::processes_with("LLORCH_RUN_DIR", run.to_str().unwrap()).iter().map(child::Adopted::pid).collect()
}

/// A generation that runs on an engine, read to its end by a task.
pub(crate) struct Generation {
    text: tokio::task::JoinHandle<String>,
}

impl Generation {
    /// Returns when its first token is there.
    pub(crate) async fn begin(handoff: &Handoff, tokens: u32) -> Self {
        let body = serde_json::json!({"prompt": "x", "n_predict": tokens, "stream": true});
        let request = client().post(format!("{}/completion", handoff.url)).json(&body);
        let request = request.bearer_auth(handoff.api_key.as_ref().unwrap());
        let mut answer = request.send().await.unwrap().error_for_status().unwrap();
        let mut text = String::new();
        while !text.contains("data:") {
            text.push_str(&String::from_utf8_lossy(&answer.chunk().await.unwrap().unwrap()));
        }
        let text = tokio::spawn(async move {
            while let Ok(Some(bytes)) = answer.chunk().await {
                text.push_str(&String::from_utf8_lossy(&bytes));
            }
            text
        });
        Self { text }
    }

    pub(crate) fn runs(&self) -> bool {
        !self.text.is_finished()
    }

    /// Whether the engine ended it in order, once it has ended.
    pub(crate) async fn was_whole(self) -> bool {
        tokio::time::timeout(DEADLINE, self.text).await.unwrap().unwrap().contains("\"stop\":true")
    }
}
