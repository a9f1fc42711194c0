//! Results of self-tests, kept between starts: a test is made once for each engine, model, flags and
//! device. Lies in the cache, because what it says is of the engine and the machine, not of one runtime
//! directory; safe to delete.

use std::path::{Path, PathBuf};

use serde::Serialize;
use sha2::{Digest, Sha256};
use wire::{Determinism, PreparedEngine};

use crate::durable;
use crate::record::hex;

/// Counts changes of what is tested.
const VERSION: u32 = 1;

/// The directory.
#[derive(Debug, Clone)]
pub(crate) struct Kept(PathBuf);

impl Kept {
    pub(crate) fn in_dir(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// The result for exactly this engine on this device, if there is one that can be read.
    pub(super) async fn read(&self, prepared: &PreparedEngine, device: &str) -> Option<Determinism> {
        let path = self.file(prepared, device);
        let read = tokio::task::spawn_blocking(move || std::fs::read(path)).await.ok()?;
        serde_json::from_slice(&read.ok()?).ok()
    }

    /// Keeps a result; where that fails the next start tests again.
    pub(super) async fn write(&self, prepared: &PreparedEngine, result: &Determinism) {
        let (dir, path) = (self.0.clone(), self.file(prepared, &result.device));
        let bytes = serde_json::to_vec_pretty(result).unwrap_or_default();
        let written = tokio::task::spawn_blocking(move || {
            durable::private_dir(&dir).and_then(|()| durable::write_private(&path, &bytes))
        });
        if let Ok(Err(error)) = written.await {
            tracing::warn!(%error, dir = %self.0.display(), "the result of the self-test is not kept; the next start tests again");
        }
    }

    fn file(&self, prepared: &PreparedEngine, device: &str) -> PathBuf {
        #[derive(Serialize)]
        struct Key<'a> {
            version: u32,
            device: &'a str,
            prepared: PreparedEngine,
        }
        // Which replica it is, and on which port, does not change what it computes.
        let anonymous = PreparedEngine {
            port: 0,
            pool_id: wire::PoolId::default_pool(),
            replica_id: wire::ReplicaId::nth(0),
            memory: None,
            ..prepared.clone()
        };
        let key = serde_json::to_vec(&Key { version: VERSION, device, prepared: anonymous });
        self.0.join(format!("{}.json", hex(&Sha256::digest(key.unwrap_or_default()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::SelfTest;

    fn prepared(change: serde_json::Value) -> PreparedEngine {
        let mut engine = serde_json::json!({
            "binary_path": "/b", "flags": ["-c", "1"], "port": 0, "host": "127.0.0.1", "model_path": "/m",
            "engine_version": "v", "pool_id": "p", "replica_id": "r0", "engine_digest": "e",
            "model_digest": "m", "ctx": 1, "slots": 1, "env": {},
        });
        for (key, value) in change.as_object().unwrap() {
            engine[key] = value.clone();
        }
        serde_json::from_value(engine).unwrap()
    }

    /// DET-004
    #[tokio::test]
    async fn a_result_is_found_again_for_the_same_engine_and_device_and_for_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let kept = Kept::in_dir(&dir.path().join("self-tests"));
        let result = Determinism {
            result: SelfTest::Passed,
            device: "d".to_owned(),
            tested_at: Some("now".to_owned()),
            tokens_sha256: None,
            differs: Vec::new(),
        };
        let of = |change| prepared(change);
        let none = serde_json::json!({});
        assert_eq!(kept.read(&of(none.clone()), "d").await, None);
        kept.write(&of(none.clone()), &result).await;
        assert_eq!(kept.read(&of(none.clone()), "d").await, Some(result.clone()));
        let another_seat = serde_json::json!({"pool_id": "q", "replica_id": "r1", "port": 7});
        assert_eq!(kept.read(&of(another_seat), "d").await, Some(result));
        assert_eq!(kept.read(&of(none.clone()), "another").await, None);
        for change in [
            serde_json::json!({"engine_digest": "f"}),
            serde_json::json!({"model_digest": "n"}),
            serde_json::json!({"flags": ["-c", "2"]}),
            serde_json::json!({"env": {"A": "1"}}),
            serde_json::json!({"device_mask": "GPU-1"}),
        ] {
            assert_eq!(kept.read(&of(change.clone()), "d").await, None, "{change}");
        }
        let file = std::fs::read_dir(dir.path().join("self-tests")).unwrap().next().unwrap().unwrap().path();
        std::fs::write(file, "{").unwrap();
        assert_eq!(kept.read(&of(none), "d").await, None, "what cannot be read is tested again");
    }

    /// DET-004: what an earlier version found is still known.
    #[tokio::test]
    async fn a_result_of_the_first_version_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let (kept, engine) = (Kept::in_dir(dir.path()), prepared(serde_json::json!({})));
        let text = include_str!("../../tests/fixtures/released/self-test-v1.json");
        std::fs::write(kept.file(&engine, "d"), text).unwrap();
        let result = kept.read(&engine, "d").await.unwrap();
        assert_eq!((result.result, result.differs), (SelfTest::Passed, Vec::new()));
        assert_eq!(result.tested_at.as_deref(), Some("2026-11-28T12:43:05Z"));
        assert!(result.tokens_sha256.unwrap().starts_with("247348428d8f"));
    }
}
