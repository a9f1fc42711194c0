//! Second start: from exec to ready, orchestratord (which provisions from the cache, launches,
//! probes, publishes and binds) against `llama-server` started by hand with the same flags. Ready
//! means a token was generated for orchestratord, and a 200 from `/health` for the engine by hand.
//!
//! Measured with the built-in model, which loads in the time a process takes to start, and with
//! random weights in the shape of the smallest models people use: half a billion parameters in F16
//! and a vocabulary of 152 thousand tokens.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use gguf_random::Shape;
use wire::PreparedEngine;

use super::stats::{HEAD, Sample};

const PATIENCE: Duration = Duration::from_secs(120);

/// What is started, on both sides.
pub(super) struct Contestant {
    pub(super) title: String,
    engine: PreparedEngine,
    /// None: what zero config means.
    config: Option<PathBuf>,
}

impl Contestant {
    /// Zero config and its engine.
    pub(super) fn builtin(engine: &PreparedEngine) -> Self {
        Self { title: "the built-in model (1.9 MB)".to_owned(), engine: engine.clone(), config: None }
    }

    /// The same pool with a model of random weights, which is made under `dir` when it is not there.
    pub(super) fn large(engine: &PreparedEngine, dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        let shape = Shape {
            name: "large".to_owned(),
            layers: 24,
            width: 1024,
            heads: 16,
            vocab: 151_936,
            f16: true,
            tied_output: true,
            ..Shape::default()
        };
        let model = dir.join("random-large.gguf");
        if !model.exists() {
            let unfinished = dir.join("random-large.gguf.part");
            shape.write(&unfinished).context("writing the model of random weights")?;
            std::fs::rename(&unfinished, &model).context("naming the model of random weights")?;
        }
        let config = dir.join("large.yaml");
        let text =
            format!("pools: [{{ id: large, model: 'file:{}', deterministic: true }}]\n", model.display());
        std::fs::write(&config, text).context("writing the configuration")?;
        let mut engine = engine.clone();
        let mut flags = engine.flags.iter_mut();
        flags.find(|flag| *flag == "--model").context("the engine's flags name no model")?;
        *flags.next().context("the engine's flags end with --model")? = model.display().to_string();
        engine.model_path = model;
        let bytes = engine.model_path.metadata().context("looking at the model")?.len();
        Ok(Self { title: format!("random weights ({} MB)", bytes / 1_000_000), engine, config: Some(config) })
    }
}

pub(super) fn measure(orchestratord: &Path, contestant: &Contestant, starts: u32) -> Result<String> {
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..=starts {
        ours.push(start_orchestratord(orchestratord, contestant.config.as_deref())?.as_secs_f64());
        bare.push(start_engine(&contestant.engine)?.as_secs_f64());
    }
    // The first of each only warms the page cache.
    let (ours, bare) = (Sample::new(ours.split_off(1)), Sample::new(bare.split_off(1)));
    Ok(format!(
        "{HEAD}\n{}\n{}\n\nratio of the medians: {:.2}",
        ours.row("orchestratord"),
        bare.row("llama-server by hand"),
        ours.quantile(0.5) / bare.quantile(0.5)
    ))
}

/// Until the banner, which is printed when a task would be taken.
fn start_orchestratord(binary: &Path, config: Option<&Path>) -> Result<Duration> {
    let dir = tempfile::tempdir().context("making a runtime directory")?;
    let mut command = Command::new(binary);
    if let Some(config) = config {
        command.arg("--config").arg(config);
    }
    let began = Instant::now();
    let mut child = command
        .env("ORCHD_ADDR", "127.0.0.1:0")
        .env("ORCHD_RUNTIME_DIR", dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("starting orchestratord")?;
    let stdout = child.stdout.take().context("taking orchestratord's stdout")?;
    let ready = BufReader::new(stdout).lines().map_while(Result::ok).any(|line| line.contains("curl -N"));
    let took = began.elapsed();
    end(child)?;
    if ready { Ok(took) } else { bail!("orchestratord ended before it was ready") }
}

/// Until `/health` answers 200.
fn start_engine(engine: &PreparedEngine) -> Result<Duration> {
    let port = TcpListener::bind("127.0.0.1:0").context("finding a free port")?.local_addr()?.port();
    let began = Instant::now();
    let child = Command::new(&engine.binary_path)
        .args(&engine.flags)
        .args(["--host", "127.0.0.1", "--port", &port.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("starting llama-server")?;
    while !healthy(port) {
        if began.elapsed() > PATIENCE {
            end(child)?;
            bail!("llama-server did not become healthy within {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let took = began.elapsed();
    end(child)?;
    Ok(took)
}

fn healthy(port: u16) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.starts_with("HTTP/1.1 200"))
    };
    ask().unwrap_or(false)
}

/// TERM, so that orchestratord stops its engine.
fn end(mut child: Child) -> Result<()> {
    Command::new("kill").arg(child.id().to_string()).status().context("sending TERM")?;
    child.wait().context("waiting for the process to end")?;
    Ok(())
}
