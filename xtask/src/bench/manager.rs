//! What pool-managerd costs and how quick it is, with ten replicas of the fake engine: CPU and memory
//! while nothing happens, the adoption of ten engines after a kill, and how long a claim outlives its
//! engine. Each beside what is promised.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use super::Binaries;
use super::stats::Sample;
use super::streams::process::{cpu_us, rss_kib};

const REPLICAS: usize = 10;
const PATIENCE: Duration = Duration::from_secs(60);
/// What a start stirs up has settled by then.
const SETTLE: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_secs(60);
const ADOPTIONS: usize = 20;
/// Every engine is killed so many times.
const ROUNDS: usize = 20;

pub(super) async fn measure(binaries: &Binaries) -> Result<String> {
    let mut manager = Manager::start(&binaries.pool_managerd, &binaries.stub).await?;
    tokio::time::sleep(SETTLE).await;
    let (cpu, rss) = manager.idle().await?;
    let mut adoptions = Vec::new();
    for _ in 0..ADOPTIONS {
        adoptions.push(manager.kill_and_adopt().await?.as_secs_f64());
    }
    let adoptions = Sample::new(adoptions);
    let mut withdrawals = Vec::new();
    for _ in 0..ROUNDS {
        withdrawals.extend(manager.kill_each_engine().await?);
    }
    let (n, withdrawals) = (withdrawals.len(), Sample::new(withdrawals));
    let rss_after = rss_kib(&[manager.child.id()])?;
    manager.stop().await?;
    let seconds = IDLE.as_secs();
    Ok(format!(
        "| | promised | measured |\n|---|--:|--:|\n\
         | CPU while idle, percent of a core over {seconds} s | ≤ 1 | {cpu:.2} |\n\
         | resident memory while idle, MiB | ≤ 25 | {:.1} |\n\
         | the same after {n} lost engines, MiB | ≤ 25 | {:.1} |\n\
         | exec to ten engines adopted, the slowest of {ADOPTIONS}, s | ≤ 2 | {:.3} |\n\
         | the same, median | | {:.3} |\n\
         | kill of an engine to its handoff withdrawn, p99 of {n}, ms | ≤ 50 | {:.1} |\n\
         | the same, median | | {:.1} |",
        rss / 1024.0,
        rss_after / 1024.0,
        adoptions.quantile(1.0),
        adoptions.quantile(0.5),
        withdrawals.quantile(0.99),
        withdrawals.quantile(0.5),
    ))
}

/// A pool-managerd with ten replicas; what is left of it ends with its value.
struct Manager {
    binary: PathBuf,
    dir: TempDir,
    addr: SocketAddr,
    http: reqwest::Client,
    child: Child,
}

impl Manager {
    async fn start(binary: &Path, stub: &Path) -> Result<Self> {
        let dir = tempfile::tempdir().context("making a directory")?;
        let addr = TcpListener::bind("127.0.0.1:0").context("finding a free port")?.local_addr()?;
        let config = format!(
            "pool_managerd: {{ listen: '{addr}' }}\n\
             paths: {{ runtime: '{dir}/runtime', cache: '{dir}/cache' }}\n\
             pools: [{{ id: p, model: 'builtin:haiku', replicas: {REPLICAS}, allow_oversubscribe: true, \
             provisioning: {{ gpu: off, sources: [{{ path: {{ binary: '{}' }} }}] }} }}]\n",
            stub.display(),
            dir = dir.path().display(),
        );
        std::fs::write(dir.path().join("config.yaml"), config).context("writing the configuration")?;
        let http = reqwest::Client::builder().no_proxy().build().context("building a client")?;
        let child = exec(binary, dir.path())?;
        let manager = Self { binary: binary.to_owned(), dir, addr, http, child };
        manager.until_all_ready().await?;
        Ok(manager)
    }

    /// CPU in percent of a core, and resident memory in KiB.
    async fn idle(&self) -> Result<(f64, f64)> {
        let pid = [self.child.id()];
        let (began, before) = (Instant::now(), cpu_us(&pid)?);
        tokio::time::sleep(IDLE).await;
        let used = cpu_us(&pid)? - before;
        Ok((used / began.elapsed().as_micros() as f64 * 100.0, rss_kib(&pid)?))
    }

    async fn kill_and_adopt(&mut self) -> Result<Duration> {
        let engines = self.engines()?;
        self.child.kill().context("killing pool-managerd")?;
        self.child.wait().context("waiting for pool-managerd")?;
        let began = Instant::now();
        self.child = exec(&self.binary, self.dir.path())?;
        self.until_all_ready().await?;
        let took = began.elapsed();
        ensure!(self.engines()? == engines, "not the same engines");
        Ok(took)
    }

    /// Milliseconds from each kill to the end of the claim; every engine serves again afterwards.
    async fn kill_each_engine(&self) -> Result<Vec<f64>> {
        let (before, mut times) = (self.engines()?, Vec::new());
        for nth in 0..REPLICAS {
            let (file, pid) = (self.handoff(nth), self.engine(nth)?);
            let claim = std::fs::metadata(&file).context("looking at the claim")?.ino();
            let began = Instant::now();
            Command::new("kill").args(["-9", &pid.to_string()]).status().context("killing an engine")?;
            // Withdrawn, or already replaced by the next life's.
            while std::fs::metadata(&file).is_ok_and(|meta| meta.ino() == claim) {
                ensure!(began.elapsed() < PATIENCE, "the claim of r{nth} stays");
                tokio::time::sleep(Duration::from_micros(200)).await;
            }
            times.push(began.elapsed().as_secs_f64() * 1e3);
        }
        // A claim is withdrawn before its replica is shown as lost.
        while !self.engines().is_ok_and(|now| now.iter().all(|pid| !before.contains(pid))) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        self.until_all_ready().await?;
        // Or the sixth loss would open the breaker.
        let reset = self.request(reqwest::Method::POST, "/v2/pools/p/reset")?.send().await;
        reset.context("asking for a reset")?.error_for_status().context("a reset")?;
        Ok(times)
    }

    fn handoff(&self, nth: usize) -> PathBuf {
        self.dir.path().join(format!("runtime/engines/p.r{nth}.json"))
    }

    fn engine(&self, nth: usize) -> Result<u64> {
        let text =
            std::fs::read(self.handoff(nth)).with_context(|| format!("reading the claim of r{nth}"))?;
        let claim: Value = serde_json::from_slice(&text).context("the claim is not JSON")?;
        claim["pid"].as_u64().context("the claim names no process")
    }

    fn engines(&self) -> Result<Vec<u64>> {
        (0..REPLICAS).map(|nth| self.engine(nth)).collect()
    }

    /// As its API shows it; a claim on disk may be an earlier manager's.
    async fn until_all_ready(&self) -> Result<()> {
        let began = Instant::now();
        loop {
            let ready = self.ready().await.unwrap_or(0);
            if ready == REPLICAS {
                return Ok(());
            }
            ensure!(began.elapsed() < PATIENCE, "{ready} of {REPLICAS} replicas serve after {PATIENCE:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Replicas that serve; an error while it does not answer yet.
    async fn ready(&self) -> Result<usize> {
        let answer = self.request(reqwest::Method::GET, "/v2/pools/p")?.send().await?.error_for_status()?;
        let pool: Value = serde_json::from_str(&answer.text().await?)?;
        let replicas = pool["replicas"].as_array().context("no replicas")?;
        Ok(replicas.iter().filter(|replica| replica["phase"] == "ready").count())
    }

    fn request(&self, method: reqwest::Method, path: &str) -> Result<reqwest::RequestBuilder> {
        let token = std::fs::read_to_string(self.dir.path().join("runtime/pool-managerd.token"))?;
        Ok(self.http.request(method, format!("http://{}{path}", self.addr)).bearer_auth(token.trim()))
    }

    async fn stop(mut self) -> Result<()> {
        Command::new("kill").arg(self.child.id().to_string()).status().context("sending TERM")?;
        self.child.wait().context("waiting for pool-managerd to end")?;
        Ok(())
    }
}

/// Engines outlive their manager, also when a measurement failed.
impl Drop for Manager {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _ = self.child.wait();
        for pid in (0..REPLICAS).filter_map(|nth| self.engine(nth).ok()) {
            let _gone = Command::new("kill").args(["-9", &pid.to_string()]).stderr(Stdio::null()).status();
        }
    }
}

fn exec(binary: &Path, dir: &Path) -> Result<Child> {
    Command::new(binary)
        .arg("--config")
        .arg(dir.join("config.yaml"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("starting pool-managerd")
}
