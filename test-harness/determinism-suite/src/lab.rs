//! One orchestratord with two replicas of a pool that is declared deterministic and one that is not.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use test_harness_e2e_haiku::{Api, Daemon, Followed, built_binary, provisioned};

use crate::{Answer, Engine, Question};

/// A condition is waited for at most this long; engines start in milliseconds where nothing is wrong.
const LIMIT: Duration = Duration::from_secs(120);

/// One thread each: threads of one engine wait for one another at every layer, which takes for ever while
/// other tests want the cores, and three engines are more than most machines have cores for.
const CONFIG: &str = "pools:
  - { id: declared, model: 'builtin:haiku', deterministic: true, replicas: 2, flags: [--threads, '1'] }
  - { id: loose, model: 'builtin:haiku', slots: 2, ctx: 1024, flags: [--threads, '1'] }
";

/// The daemons and engines of a test.
pub struct Lab {
    daemon: Daemon,
    api: Api,
    _config: TempDir,
}

impl Lab {
    /// Starts everything, on the engine that is cached or built now.
    pub async fn start() -> Result<Self> {
        provisioned()?;
        let dir = TempDir::new().context("making a directory for the configuration")?;
        let config = dir.path().join("config.yaml");
        std::fs::write(&config, CONFIG).context("writing the configuration")?;
        let config = config.to_str().context("a path that is not UTF-8")?;
        let daemon = Daemon::start_binary(&built_binary("orchestratord")?, &["--config", config])?;
        let api = Api::new(daemon.base())?;
        let lab = Self { daemon, api, _config: dir };
        for replica in ["declared/r0", "declared/r1", "loose/r0"] {
            lab.until_up(replica, 1).await?;
        }
        Ok(lab)
    }

    /// The daemon's API.
    #[must_use]
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// Ends it in order.
    pub fn stop(self) -> Result<Duration> {
        self.daemon.stop()
    }

    /// The handoff of `pool/replica`.
    pub fn handoff(&self, replica: &str) -> Result<Value> {
        let path = self.handoffs().join(format!("{}.json", replica.replace('/', ".")));
        let bytes = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        serde_json::from_slice(&bytes).with_context(|| format!("reading {}", path.display()))
    }

    /// Publishes a handoff by hand.
    pub fn publish(&self, handoff: &Value) -> Result<()> {
        use std::os::unix::fs::PermissionsExt as _;
        let text = |name: &str| handoff[name].as_str().context("a handoff without its ids");
        let name = format!("{}.{}.json", text("pool_id")?, text("replica_id")?);
        let part = self.handoffs().join(format!(".{name}.part"));
        std::fs::write(&part, handoff.to_string()).context("writing a handoff")?;
        std::fs::set_permissions(&part, std::fs::Permissions::from_mode(0o600)).context("its mode")?;
        std::fs::rename(&part, self.handoffs().join(name)).context("naming a handoff")
    }

    fn handoffs(&self) -> PathBuf {
        self.daemon.runtime().join("engines")
    }

    /// The engine behind `pool/replica`.
    pub fn engine(&self, replica: &str) -> Result<Engine> {
        Engine::of_handoff(&self.handoff(replica)?)
    }

    /// Kills an engine as nothing else does.
    pub fn kill(&self, engine: &Engine) -> Result<()> {
        kill(Pid::from_raw(engine.pid), Signal::SIGKILL).context("killing the engine")
    }

    /// Waits until this life of `pool/replica`, or a later one, takes tasks.
    pub async fn until_up(&self, replica: &str, generation: u64) -> Result<()> {
        let (pool, name) = replica.split_once('/').context("pool/replica")?;
        let began = Instant::now();
        loop {
            let view = self.api.get(&format!("/v2/pools/{pool}")).await.unwrap_or_default();
            let of = |r: &&Value| r["id"] == name && r["generation"].as_u64() >= Some(generation);
            let found = view["replicas"].as_array().and_then(|all| all.iter().find(of));
            // Only what orchestratord itself has probed has free slots.
            if found.is_some_and(|r| r["phase"] == "ready" && r["slots_free"].as_u64() >= Some(1)) {
                return Ok(());
            }
            if began.elapsed() > LIMIT {
                bail!("{replica} is not up in life {generation}: {view:#}");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Submits a task there; the path of its events.
    pub async fn submit(&self, replica: &str, mode: &str, question: &Question) -> Result<String> {
        let (pool, name) = replica.split_once('/').context("pool/replica")?;
        let body = json!({
            "model": pool, "prompt": question.prompt, "seed": question.seed.to_string(),
            "temperature": question.temperature, "max_tokens": question.max_tokens,
            "placement": {"mode": mode, "pool_id": pool, "replica_id": name},
        });
        let (status, accepted) = self.api.post("/v2/tasks", &body).await?;
        ensure!(status == 202, "the task was answered {status}: {accepted}");
        Ok(accepted["streams"]["sse"].as_str().context("the 202 names no stream")?.to_owned())
    }

    /// Asks through the front door.
    pub async fn answer(&self, replica: &str, mode: &str, question: &Question) -> Result<(Answer, Followed)> {
        let path = self.submit(replica, mode, question).await?;
        let followed = self.api.follow(&path, None).await?;
        Ok((Self::read(&followed)?, followed))
    }

    /// What a stream that was read to its end says.
    pub fn read(followed: &Followed) -> Result<Answer> {
        for (expected, token) in followed.named("token").enumerate() {
            ensure!(token.data["i"] == expected as u64, "a gap before {}", token.data);
        }
        let end = followed.end()?;
        Ok(Answer {
            text: followed.text(),
            tokens_sha256: end["receipt"]["tokens_sha256"].as_str().context("no digest")?.to_owned(),
            tokens: end["tokens_out"].as_u64().context("no tokens_out")?,
        })
    }
}

/// As in a receipt: over the ids, each as four little-endian bytes.
#[must_use]
pub fn tokens_sha256(ids: &[u32]) -> String {
    let mut digest = Sha256::new();
    ids.iter().for_each(|id| digest.update(id.to_le_bytes()));
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
