//! The stub in the place of what prepares engines: with the fault switches, the failures and the sizes that a test
//! wants.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use pool_managerd::{Cancel, Prepare, PrepareError, Progress};
use provisioners_model_provisioner::Catalog;
use wire::config::PoolConfig;
use wire::{MemoryEstimate, PreparedEngine, ReplicaId, StepStatus};

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
    pub(super) models: Mutex<Option<Catalog>>,
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
