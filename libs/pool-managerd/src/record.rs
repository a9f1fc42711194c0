//! The run directory and its identity records: what is written before a process is started, so
//! that the next manager finds every process of ours and never starts a second one beside it.
//! All calls block.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use child::{ProcessIdentity, SpawnId};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use wire::config::PoolConfig;
use wire::{Handoff, ModelRecord, PoolId, PreparedEngine, ReplicaId, ReplicaKey};

use crate::changes::engine_part;
use crate::durable;

const SCHEMA_VERSION: u32 = 1;
const CANDIDATE: &str = "next";

/// One life of a replica, from intent to readiness.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) schema_version: u32,
    pub(crate) pool_id: PoolId,
    pub(crate) replica_id: ReplicaId,
    /// Grows by one with every life.
    pub(crate) generation: u64,
    /// In the environment of the process, even when nothing else of it was written down.
    pub(crate) spawn_id: SpawnId,
    /// Of the pool's configuration when it was launched.
    pub(crate) pool_digest: String,
    pub(crate) prepared: PreparedEngine,
    /// The cards that it was started on; those of `prepared` are what was to be had when it was prepared.
    #[serde(default)]
    pub(crate) device_mask: Option<String>,
    pub(crate) model: Option<ModelRecord>,
    pub(crate) port: u16,
    /// Where its life begins in its log: what stands before is of others, and says nothing about its end.
    #[serde(default)]
    pub(crate) log_begin: u64,
    /// Absent between intent and spawn.
    pub(crate) identity: Option<ProcessIdentity>,
    /// Absent until it was ready.
    pub(crate) handoff: Option<Handoff>,
}

impl Record {
    pub(crate) fn intent(
        pool: &PoolConfig,
        prepared: &PreparedEngine,
        model: Option<ModelRecord>,
        generation: u64,
        port: u16,
    ) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            pool_id: prepared.pool_id.clone(),
            replica_id: prepared.replica_id.clone(),
            generation,
            spawn_id: SpawnId::generate(),
            pool_digest: pool_digest(pool),
            prepared: prepared.clone(),
            device_mask: prepared.device_mask.clone(),
            model,
            port,
            log_begin: 0,
            identity: None,
            handoff: None,
        }
    }

    pub(crate) fn key(&self) -> ReplicaKey {
        ReplicaKey { pool: self.pool_id.clone(), replica: self.replica_id.clone() }
    }
}

/// A pool whose digest is the same launches the same engine: its sources are pinned.
pub(crate) fn pool_digest(pool: &PoolConfig) -> String {
    let bytes = serde_json::to_vec(&engine_part(pool)).unwrap_or_default();
    hex(&Sha256::digest(bytes))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _never_fails = write!(text, "{byte:02x}");
        text
    })
}

/// `<runtime>/run`.
#[derive(Debug, Clone)]
pub(crate) struct RunDir {
    path: PathBuf,
}

impl RunDir {
    pub(crate) fn open(runtime: &Path) -> io::Result<Self> {
        let path = runtime.join("run");
        durable::private_dir(&path)?;
        let dir = Self { path: fs::canonicalize(path)? };
        durable::private_dir(&dir.empty_home())?;
        Ok(dir)
    }

    /// In every engine's environment, so that engines whose record was lost are still found.
    pub(crate) fn marker(&self) -> &str {
        self.path.to_str().unwrap_or_default()
    }

    /// `HOME` and `XDG_CONFIG_HOME` of engines: the user's files are none of their business.
    pub(crate) fn empty_home(&self) -> PathBuf {
        self.path.join("home")
    }

    pub(crate) fn log(&self, key: &ReplicaKey) -> PathBuf {
        self.path.join(format!("llamacpp-{}.{}.log", key.pool, key.replica))
    }

    /// The log of an engine that is started beside one that serves, until it takes its place.
    pub(crate) fn candidate_log(&self, key: &ReplicaKey) -> PathBuf {
        self.path.join(format!("llamacpp-{}.{}.next.log", key.pool, key.replica))
    }

    /// Each life has its own, because two may run beside each other.
    pub(crate) fn api_key(&self, key: &ReplicaKey, generation: u64) -> PathBuf {
        self.file(key, &format!("{generation}.key"))
    }

    fn file(&self, key: &ReplicaKey, extension: &str) -> PathBuf {
        self.path.join(format!("{}.{}.{extension}", key.pool, key.replica))
    }

    /// Writes a record; it is on disk when this returns.
    pub(crate) fn write(&self, record: &Record) -> io::Result<()> {
        durable::write_private(&self.file(&record.key(), "pid"), &serde_json::to_vec_pretty(record)?)
    }

    /// As [`write`](Self::write), for an engine that is started beside one that serves. It is never
    /// adopted: the next manager ends it.
    pub(crate) fn write_candidate(&self, record: &Record) -> io::Result<()> {
        durable::write_private(&self.file(&record.key(), CANDIDATE), &serde_json::to_vec_pretty(record)?)
    }

    /// Removes what belongs to a life that is over; its log stays, and so does what belongs to another
    /// life of the replica.
    pub(crate) fn forget(&self, key: &ReplicaKey, generation: u64) -> io::Result<()> {
        durable::remove(&self.api_key(key, generation))?;
        for extension in ["pid", CANDIDATE] {
            let path = self.file(key, extension);
            let record = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Record>(&bytes).ok());
            if record.is_some_and(|record| record.generation == generation) {
                durable::remove(&path)?;
            }
        }
        Ok(())
    }

    /// The candidate has taken the place of the engine that served: its record is the replica's now.
    pub(crate) fn forget_candidate(&self, key: &ReplicaKey) -> io::Result<()> {
        durable::remove(&self.file(key, CANDIDATE))
    }

    /// The number of the next life, kept beside the records because it outlives them.
    pub(crate) fn next_generation(&self, key: &ReplicaKey) -> io::Result<u64> {
        let path = self.file(key, "generation");
        let last = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0_u64);
        let next = last.saturating_add(1);
        durable::write_private(&path, format!("{next}\n").as_bytes())?;
        Ok(next)
    }

    /// Every replica that ever lived here, by what outlives its records.
    pub(crate) fn replicas(&self) -> io::Result<Vec<ReplicaKey>> {
        let mut keys = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            let name = name.to_str().and_then(|name| name.strip_suffix(".generation")?.split_once('.'));
            let key = name.and_then(|(pool, replica)| {
                let (pool, replica) = (PoolId::try_new(pool).ok()?, ReplicaId::try_new(replica).ok()?);
                Some(ReplicaKey { pool, replica })
            });
            keys.extend(key);
        }
        Ok(keys)
    }

    /// Every record; one that cannot be read is removed, its process is found by the marker.
    pub(crate) fn records(&self) -> io::Result<Vec<Record>> {
        let mut records = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == CANDIDATE) {
                // Its process is found by the marker, and nobody wants it.
                durable::remove(&path)?;
            }
            if path.extension().is_none_or(|e| e != "pid") {
                continue;
            }
            match fs::read(&path).and_then(|b| Ok(serde_json::from_slice(&b)?)) {
                Ok(record) => records.push(record),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "an unreadable identity record is removed");
                    durable::remove(&path)?;
                }
            }
        }
        Ok(records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> ReplicaKey {
        ReplicaKey { pool: PoolId::try_new("p").unwrap(), replica: ReplicaId::nth(0) }
    }

    #[test]
    fn generations_grow_over_the_lives_of_managers() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(RunDir::open(dir.path()).unwrap().next_generation(&key()).unwrap(), 1);
        let again = RunDir::open(dir.path()).unwrap();
        again.forget(&key(), 1).unwrap();
        assert_eq!(again.replicas().unwrap(), [key()]);
        assert_eq!(again.next_generation(&key()).unwrap(), 2);
    }

    /// POOLD-LAUNCH-002: an engine that was kept over an upgrade is found by the record of before.
    #[test]
    fn a_record_of_every_released_version_is_read() {
        let kept = [include_str!("../tests/fixtures/released/record-v1.pid")];
        assert_eq!(kept.len(), usize::try_from(SCHEMA_VERSION).unwrap(), "keep one of each version");
        for (text, version) in kept.into_iter().zip(1..) {
            let dir = tempfile::tempdir().unwrap();
            let run = RunDir::open(dir.path()).unwrap();
            fs::write(dir.path().join("run/p.r0.pid"), text).unwrap();
            let record = run.records().unwrap().remove(0);
            assert_eq!((record.schema_version, record.key(), record.generation), (version, key(), 1));
            let identity = record.identity.unwrap();
            assert_eq!((identity.pid, identity.start_ticks), (29_212, 1_435_984));
            assert_eq!(record.spawn_id.to_string(), "28a26ae82e414399be1beadcf3573780");
            let handoff = record.handoff.unwrap();
            assert_eq!((handoff.pid, handoff.generation, record.port), (Some(29_212), 1, 46_395));
            assert_eq!(record.model.unwrap().digest, record.prepared.model_digest);
        }
    }

    #[test]
    fn a_torn_record_is_set_aside_and_stops_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::open(dir.path()).unwrap();
        let torn = dir.path().join("run/p.r0.pid");
        fs::write(&torn, b"{\"schema_version\": 1, \"poo").unwrap();
        assert!(run.records().unwrap().is_empty());
        assert!(!torn.exists());
    }

    /// POOLD-RELOAD-003
    #[test]
    fn a_candidate_is_no_record_to_adopt_from_and_its_end_leaves_the_replicas_own_record() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::open(dir.path()).unwrap();
        let prepared: PreparedEngine = serde_json::from_value(serde_json::json!({
            "binary_path": "/b", "flags": [], "port": 0, "host": "127.0.0.1", "model_path": "/m",
            "engine_version": "v", "pool_id": "p", "replica_id": "r0", "engine_digest": "",
            "model_digest": "", "ctx": 1, "slots": 1, "env": {},
        }))
        .unwrap();
        let record = |generation| Record::intent(&PoolConfig::haiku(), &prepared, None, generation, 1);
        run.write(&record(1)).unwrap();
        run.write_candidate(&record(2)).unwrap();
        run.forget(&key(), 2).unwrap();
        assert!(!dir.path().join("run/p.r0.next").exists());
        run.write_candidate(&record(3)).unwrap();
        let found: Vec<_> = run.records().unwrap().iter().map(|record| record.generation).collect();
        assert_eq!(found, [1]);
        assert!(!dir.path().join("run/p.r0.next").exists(), "its process is found by the marker");
    }

    #[test]
    fn any_change_that_its_engine_knows_of_changes_a_pools_digest() {
        let pool = PoolConfig::haiku();
        let mut other = PoolConfig { aliases: vec!["x".to_owned()], replicas: 2, ..pool.clone() };
        assert_eq!(pool_digest(&pool), pool_digest(&other));
        other.flags.push("--no-mmap".to_owned());
        assert_ne!(pool_digest(&pool), pool_digest(&other));
    }
}
