//! A pool-managerd over stub-llama in a directory of its own, and ways to wait for what it does.

mod cards;
mod generation;
mod manager;
mod preparer;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pool_managerd::{
    App, AppConfig, AvailableMemory, Discover, InheritedEnv, Prepare, RestartPolicy, Running, StartError,
    Timings, Token,
};
use provisioners_model_provisioner::Catalog;
use sha2::{Digest as _, Sha256};
use wire::config::PoolConfig;
use wire::pool::ReplicaError;
use wire::{Handoff, PoolId, ReplicaView};

pub(crate) use cards::FakeCards;
pub(crate) use generation::{Generation, client};
pub(crate) use manager::Manager;
pub(crate) use preparer::StubPreparer;

/// For things that must happen some time; what must happen soon has its own limit.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

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
