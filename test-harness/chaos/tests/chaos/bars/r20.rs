//! R20: downloads that are cut, wrong, short, or wanted twice at once.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use gguf_random::Shape;
use sha2::{Digest as _, Sha256};
use test_harness_bdd::{Process, Rig};

use crate::run::{Run, reached};
use crate::server::{Reply, Seen, Server};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const FILE: &str = "random-q4_k_m.gguf";

/// What may be fetched twice.
const AGAIN: usize = 1 << 20;

pub(super) async fn run(run: Arc<Run>) -> Result<()> {
    let model = Arc::new(Shape { width: 512, layers: 2, ..Shape::default() }.to_bytes());
    cut(&run, &model).await?;
    refused(&run, "checksum mismatch", &model, &sha256(b"another file")).await?;
    let short = Arc::new(model[..model.len() / 2].to_vec());
    let digest = sha256(&short);
    refused(&run, "truncated GGUF", &short, &digest).await?;
    at_once(&run, &model).await
}

/// The hub's word on the model, and its bytes as `bytes` gives them.
fn hub(
    model: &Arc<Vec<u8>>,
    digest: &str,
    bytes: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static,
) -> Server {
    let (length, etag) = (model.len().to_string(), format!("\"{digest}\""));
    Server::start(move |seen, nth| {
        if seen.path.starts_with("/api/models/org/repo/tree/main?") {
            let file = serde_json::json!([{"type": "file", "path": FILE, "oid": "x", "size": 1}]);
            return Reply::body(file.to_string());
        }
        if seen.method == "HEAD" {
            let reply = Reply::status(302).with("Location", "https://store.example/x");
            let reply = reply.with("X-Repo-Commit", COMMIT).with("X-Linked-Etag", &etag);
            return reply.with("X-Linked-Size", &length);
        }
        bytes(seen, nth)
    })
}

fn machine(run: &Run) -> Result<Arc<Rig>> {
    let rig = run.machine()?;
    rig.configure("pools: [{ id: p, model: 'hf:org/repo:Q4_K_M', engine: $STUB_ENGINE }]\n")?;
    Ok(rig)
}

fn provisioner(rig: &Rig, hub: &Server) -> Result<Command> {
    let mut command = rig.program("engine-provisioner")?;
    command.args(["--config", "config.yaml"]).env("HF_ENDPOINT", &hub.base).env("HOME", rig.path("home"));
    command.env_remove("HF_TOKEN").env_remove("HF_HOME").env_remove("HF_HUB_CACHE").stdin(Stdio::null());
    Ok(command)
}

/// Runs it to its end: the exit code and what it said.
async fn ended(mut command: Command) -> Result<(i32, String)> {
    let output = tokio::task::spawn_blocking(move || command.output()).await.context("waiting")?;
    let output = output.context("running engine-provisioner")?;
    Ok((output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).into_owned()))
}

/// The connection stalls at 37 %, the provisioner is killed there, and another one goes on.
async fn cut(run: &Run, model: &Arc<Vec<u8>>) -> Result<()> {
    let at = model.len() * 37 / 100;
    let bytes = Arc::clone(model);
    let digest = sha256(model);
    let hub = hub(model, &digest, move |seen, nth| {
        let reply = Reply::ranged(seen, &bytes, "\"v1\"");
        if nth == 0 { reply.stall_after(at) } else { reply }
    });
    let rig = machine(run)?;
    let watch = Watch::begin(&rig, &digest);
    let first = Process::start(provisioner(&rig, &hub)?, rig.path("first.log"))?;
    let kept = || files(&rig, "part").iter().map(|path| size(path)).sum::<usize>();
    reached("what came before the cut is there", || async {
        // All that was sent has been taken when nothing more comes.
        let before = kept();
        tokio::time::sleep(Duration::from_millis(300)).await;
        Ok(before + AGAIN >= at && kept() == before)
    })
    .await?;
    let mut first = first;
    first.signal(nix::sys::signal::Signal::SIGKILL)?;
    first.ended().await?;
    let (code, said) = ended(provisioner(&rig, &hub)?).await?;
    anyhow::ensure!(code == 0, "the second one ended with {code}: {said}");
    let from = hub.gets().last().context("no request")?.from();
    run.amount("cut at 37 %: fetched again", at.saturating_sub(from) as f64 / 1024.0, 1024.0, "KiB");
    run.count("cut at 37 %: unverified under a final name", watch.end(), 0..=0);
    Ok(())
}

/// Bytes that must not be used.
async fn refused(run: &Run, what: &str, model: &Arc<Vec<u8>>, digest: &str) -> Result<()> {
    let bytes = Arc::clone(model);
    let hub = hub(model, digest, move |seen, _| Reply::ranged(seen, &bytes, "\"v1\""));
    let rig = machine(run)?;
    // No file may appear at all.
    let watch = Watch::begin(&rig, "none");
    let (code, said) = ended(provisioner(&rig, &hub)?).await?;
    let why = said.lines().last().unwrap_or_default().chars().take(160).collect::<String>();
    run.fact(what, code == 6 || code == 7, format!("exit {code}: {why}"));
    run.count(format!("{what}: files under a final name"), watch.end(), 0..=0);
    Ok(())
}

/// Two provisioners that want the same.
async fn at_once(run: &Run, model: &Arc<Vec<u8>>) -> Result<()> {
    let digest = sha256(model);
    let bytes = Arc::clone(model);
    let hub = hub(model, &digest, move |seen, _| Reply::ranged(seen, &bytes, "\"v1\""));
    let rig = machine(run)?;
    let watch = Watch::begin(&rig, &digest);
    let (one, two) = tokio::join!(ended(provisioner(&rig, &hub)?), ended(provisioner(&rig, &hub)?));
    for (code, said) in [one?, two?] {
        anyhow::ensure!(code == 0, "one of two ended with {code}: {said}");
    }
    run.count("two at once: downloads", hub.gets().len(), 1..=1);
    run.count("two at once: unverified under a final name", watch.end(), 0..=0);
    Ok(())
}

/// Looks all the time whether a file has its final name without the digest that it must have.
struct Watch {
    over: Arc<AtomicBool>,
    seen: Arc<AtomicUsize>,
    thread: std::thread::JoinHandle<()>,
}

impl Watch {
    fn begin(rig: &Arc<Rig>, digest: &str) -> Self {
        let (over, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (ended, found, rig, digest) = (over.clone(), seen.clone(), Arc::clone(rig), digest.to_owned());
        let thread = std::thread::spawn(move || {
            loop {
                // Once more after the end: what is there then stays there.
                let last = ended.load(Ordering::SeqCst);
                let wrong = |path: &PathBuf| std::fs::read(path).is_ok_and(|bytes| sha256(&bytes) != digest);
                found.fetch_add(
                    files(&rig, "gguf").iter().filter(|path| wrong(path)).count(),
                    Ordering::SeqCst,
                );
                if last {
                    return;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        Self { over, seen, thread }
    }

    fn end(self) -> usize {
        self.over.store(true, Ordering::SeqCst);
        // It only reads files; a panic there would be one of the standard library's.
        let _ = self.thread.join();
        self.seen.load(Ordering::SeqCst)
    }
}

/// Files of the models' cache with an ending.
fn files(rig: &Rig, ending: &str) -> Vec<PathBuf> {
    let listed =
        |dir: PathBuf| std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let inside = listed(rig.path("cache/models"))
        .flat_map(|path| if path.is_dir() { listed(path).collect() } else { vec![path] });
    inside.filter(|path| path.extension().is_some_and(|e| e == ending)).collect()
}

fn size(path: &Path) -> usize {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len() as usize)
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
