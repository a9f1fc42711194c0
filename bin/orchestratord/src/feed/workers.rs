//! Engines that others registered: what the feed follows beside the handoff directory. The table says
//! what is wanted; the feed compares it with what it follows whenever it changes, as it does with the
//! directory's files. Probing, health and slots are as for any other replica.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use handoff::{Claim, EngineUrl, EngineUrlError};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::Instant;
use wire::config::Network;
use wire::worker::RegisterWorker;
use wire::{Handoff, HandoffModel, HandoffState, ReplicaKey};

/// More are a loop somewhere.
const MOST: usize = 1_024;
const VERSION: u32 = 1;

/// The registered engines. Cheap to clone; all clones are one table.
#[derive(Debug, Clone)]
pub(crate) struct Workers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    networks: Vec<Network>,
    /// Where they outlive the process; absent where nothing does.
    file: Option<PathBuf>,
    table: Mutex<Table>,
    /// Held over every change, so that what is on disk and what is in force are the same.
    changing: tokio::sync::Mutex<()>,
    changed: Notify,
}

#[derive(Debug, Clone, Default)]
struct Table {
    workers: BTreeMap<ReplicaKey, Worker>,
    generations: u64,
}

/// One registered engine.
#[derive(Debug, Clone)]
pub(crate) struct Worker {
    pub(crate) request: RegisterWorker,
    url: EngineUrl,
    /// Grows whenever what is registered under a name changes.
    generation: u64,
    /// When it is unregistered unless a heartbeat comes.
    pub(crate) expires: Option<Instant>,
}

/// Why an engine was not registered or unregistered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkerError {
    /// It is not where an engine may be.
    #[error(transparent)]
    Url(#[from] EngineUrlError),
    /// There is no place for one more.
    #[error("{MOST} engines are registered already")]
    TooMany,
    /// The registration could not be written down.
    #[error("cannot write the registered engines to {path}")]
    Unwritten {
        /// Where to.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What is on disk.
#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    workers: Vec<RegisterWorker>,
}

impl Workers {
    /// Takes back what an earlier process had in `file`. What cannot be used is reported and left out.
    pub(crate) fn open(file: Option<PathBuf>, networks: Vec<Network>) -> Self {
        let mut table = Table::default();
        for request in file.as_deref().map(read).unwrap_or_default() {
            let key = key(&request);
            match EngineUrl::within(&request.url, &networks) {
                Ok(url) => table.put(request, url),
                Err(error) => tracing::warn!(replica = %key, %error, "a registered engine is left out"),
            }
        }
        let changing = tokio::sync::Mutex::new(());
        Self(Arc::new(Inner { networks, file, table: Mutex::new(table), changing, changed: Notify::new() }))
    }

    /// Registers an engine, or renews it when it is registered just so.
    pub(crate) async fn register(&self, request: RegisterWorker) -> Result<Worker, WorkerError> {
        let url = EngineUrl::within(&request.url, &self.0.networks)?;
        let key = key(&request);
        self.change(|table| {
            if table.workers.len() >= MOST && !table.workers.contains_key(&key) {
                return Err(WorkerError::TooMany);
            }
            table.put(request, url);
            table.workers.get(&key).cloned().ok_or(WorkerError::TooMany)
        })
        .await
    }

    /// A heartbeat; `None` for an engine that is not registered.
    pub(crate) async fn renew(&self, key: &ReplicaKey) -> Option<Worker> {
        let _one_change = self.0.changing.lock().await;
        let mut table = self.lock();
        let worker = table.workers.get_mut(key)?;
        worker.renew();
        Some(worker.clone())
    }

    /// Unregisters an engine; `None` for one that is not registered.
    pub(crate) async fn remove(&self, key: &ReplicaKey) -> Result<Option<Worker>, WorkerError> {
        self.change(|table| Ok(table.workers.remove(key))).await
    }

    /// All of them, by pool and name.
    pub(crate) fn all(&self) -> Vec<Worker> {
        self.lock().workers.values().cloned().collect()
    }

    /// Whether an engine is registered under this name.
    pub(crate) fn has(&self, key: &ReplicaKey) -> bool {
        self.lock().workers.contains_key(key)
    }

    /// What they claim, as if each had a handoff.
    pub(super) fn claims(&self) -> BTreeMap<ReplicaKey, Claim> {
        self.lock().workers.iter().map(|(key, worker)| (key.clone(), worker.claim())).collect()
    }

    /// Resolves when what is registered may have changed, and when one has gone too long without a
    /// heartbeat, which is then no longer registered.
    pub(super) async fn changed(&self) {
        let next = self.lock().workers.values().filter_map(|worker| worker.expires).min();
        let expiry = async {
            match next {
                Some(next) => tokio::time::sleep_until(next).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.0.changed.notified() => {}
            () = expiry => self.expire().await,
        }
    }

    async fn expire(&self) {
        let done = self.change(|table| {
            let now = Instant::now();
            table.workers.retain(|key, worker| {
                let stays = worker.expires.is_none_or(|expires| expires > now);
                if !stays {
                    tracing::warn!(replica = %key, "a registered engine sent no heartbeat; it is unregistered");
                }
                stays
            });
            Ok(())
        });
        if let Err(error) = done.await {
            // It would come back with the next process, for as long as one heartbeat may take.
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "registered engines are not written down"
            );
            self.lock()
                .workers
                .retain(|_, worker| worker.expires.is_none_or(|expires| expires > Instant::now()));
        }
    }

    /// On disk first, then in force.
    async fn change<T>(
        &self,
        change: impl FnOnce(&mut Table) -> Result<T, WorkerError>,
    ) -> Result<T, WorkerError> {
        let _one_change = self.0.changing.lock().await;
        let mut next = self.lock().clone();
        let before = next.stored();
        let result = change(&mut next)?;
        let stored = next.stored();
        if let Some(file) = self.0.file.clone().filter(|_| stored != before) {
            let path = file.clone();
            let written = tokio::task::spawn_blocking(move || write(&file, stored)).await;
            let written = written.unwrap_or_else(|_| Err(io::Error::other("the process is ending")));
            written.map_err(|source| WorkerError::Unwritten { path, source })?;
        }
        *self.lock() = next;
        self.0.changed.notify_one();
        Ok(result)
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn put(&mut self, request: RegisterWorker, url: EngineUrl) {
        let key = key(&request);
        let same = |worker: &&Worker| same_engine(&worker.request, &request);
        let generation = self.workers.get(&key).filter(same).map(|worker| worker.generation);
        let generation = generation.unwrap_or_else(|| {
            self.generations += 1;
            self.generations
        });
        let mut worker = Worker { request, url, generation, expires: None };
        worker.renew();
        self.workers.insert(key, worker);
    }

    fn stored(&self) -> Vec<RegisterWorker> {
        self.workers.values().map(|worker| worker.request.clone()).collect()
    }
}

impl Worker {
    pub(crate) fn key(&self) -> ReplicaKey {
        key(&self.request)
    }

    fn renew(&mut self) {
        self.expires = self.request.ttl_ms.map(|ttl| Instant::now() + Duration::from_millis(ttl));
    }

    fn claim(&self) -> Claim {
        let request = &self.request;
        let handoff = Handoff {
            schema_version: wire::handoff::HANDOFF_SCHEMA_VERSION,
            engine: "llamacpp".to_owned(),
            engine_digest: String::new(),
            build_flags: Vec::new(),
            engine_version: String::new(),
            provisioning_mode: "external".to_owned(),
            url: request.url.clone(),
            pool_id: request.pool_id.clone(),
            replica_id: request.replica_id.clone(),
            model: HandoffModel { id: request.model.clone(), ..HandoffModel::default() },
            flags: Vec::new(),
            generation: self.generation,
            state: HandoffState::Ready,
            pid: None,
            api_key: request.api_key.clone(),
            slots_total: request.slots.unwrap_or(1),
            ctx: None,
            device_mask: None,
            started_at: None,
            load_ms: None,
            determinism: None,
        };
        Claim { file: "POST /v2/workers/register".to_owned(), handoff, url: self.url }
    }
}

fn key(request: &RegisterWorker) -> ReplicaKey {
    ReplicaKey { pool: request.pool_id.clone(), replica: request.replica_id.clone() }
}

/// Whether two registrations under one name are of one engine as it is.
fn same_engine(one: &RegisterWorker, other: &RegisterWorker) -> bool {
    let engine = |request: &RegisterWorker| RegisterWorker { ttl_ms: None, ..request.clone() };
    engine(one) == engine(other)
}

fn read(file: &Path) -> Vec<RegisterWorker> {
    let text = match std::fs::read(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            tracing::warn!(file = %file.display(), %error, "cannot read the registered engines; there are none");
            return Vec::new();
        }
    };
    match serde_json::from_slice::<Stored>(&text) {
        Ok(stored) if stored.version == VERSION => stored.workers,
        read => {
            let why =
                read.map_or_else(|e| e.to_string(), |stored| format!("it has version {}", stored.version));
            let kept = std::fs::rename(file, file.with_extension("json.unreadable")).is_ok();
            tracing::warn!(file = %file.display(), why, kept, "the registered engines are unreadable; there are none");
            Vec::new()
        }
    }
}

/// A new file in place of the old one; it may hold keys.
fn write(file: &Path, workers: Vec<RegisterWorker>) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let new = file.with_extension("json.new");
    let text = serde_json::to_vec(&Stored { version: VERSION, workers })?;
    let mut out =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    out.write_all(&text)?;
    out.sync_all()?;
    std::fs::rename(&new, file)?;
    std::fs::File::open(file.parent().unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(url: &str, ttl_ms: Option<u64>) -> RegisterWorker {
        serde_json::from_value(serde_json::json!({
            "url": url, "pool_id": "p", "replica_id": "w", "model": "m", "ttl_ms": ttl_ms, "api_key": "k",
        }))
        .unwrap()
    }

    /// ORCHD-WORKER-003
    #[tokio::test(start_paused = true)]
    async fn a_worker_without_heartbeats_is_unregistered_and_one_with_them_stays() {
        let workers = Workers::open(None, Vec::new());
        let worker = workers.register(request("http://127.0.0.1:1", Some(10_000))).await.unwrap();
        workers.changed().await;
        for _ in 0..3 {
            tokio::time::advance(Duration::from_secs(9)).await;
            assert!(workers.renew(&worker.key()).await.is_some());
        }
        let began = Instant::now();
        while workers.has(&worker.key()) {
            workers.changed().await;
        }
        assert_eq!(began.elapsed().as_secs(), 10);
        assert!(workers.renew(&worker.key()).await.is_none());
    }

    /// ORCHD-WORKER-002
    #[tokio::test]
    async fn what_is_registered_again_just_so_is_the_same_life_and_otherwise_another() {
        let workers = Workers::open(None, Vec::new());
        let first = workers.register(request("http://127.0.0.1:1", None)).await.unwrap();
        let again = workers.register(request("http://127.0.0.1:1", Some(5_000))).await.unwrap();
        assert_eq!(first.generation, again.generation);
        let moved = workers.register(request("http://127.0.0.1:2", None)).await.unwrap();
        assert!(moved.generation > again.generation);
        assert_eq!(workers.all().len(), 1);
    }

    /// ORCHD-WORKER-004
    #[tokio::test]
    async fn registrations_are_kept_on_disk_for_their_owner_only_and_outside_the_networks_not_believed() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("workers.json");
        let network: Network = "10.0.0.0/8".parse().unwrap();
        let workers = Workers::open(Some(file.clone()), vec![network]);
        workers.register(request("http://10.1.1.1:1", None)).await.unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let reopened = Workers::open(Some(file.clone()), vec![network]);
        assert_eq!(reopened.all()[0].request, request("http://10.1.1.1:1", None));
        // The configuration no longer allows it.
        assert!(Workers::open(Some(file.clone()), Vec::new()).all().is_empty());
        reopened.remove(&key(&request("http://10.1.1.1:1", None))).await.unwrap().unwrap();
        assert!(Workers::open(Some(file.clone()), vec![network]).all().is_empty());
        std::fs::write(&file, "{").unwrap();
        assert!(Workers::open(Some(file.clone()), vec![network]).all().is_empty());
        assert!(file.with_extension("json.unreadable").exists());
    }
}
