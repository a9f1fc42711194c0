//! Second start: from exec to ready, orchestratord (which provisions from the cache, launches,
//! probes, publishes and binds) against `llama-server` started by hand with the same flags.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use wire::PreparedEngine;

use super::stats::{HEAD, Sample};

const PATIENCE: Duration = Duration::from_secs(120);

pub(super) fn measure(orchestratord: &Path, engine: &PreparedEngine, starts: u32) -> Result<String> {
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..=starts {
        ours.push(start_orchestratord(orchestratord)?.as_secs_f64());
        bare.push(start_engine(engine)?.as_secs_f64());
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
fn start_orchestratord(binary: &Path) -> Result<Duration> {
    let dir = tempfile::tempdir().context("making a runtime directory")?;
    let began = Instant::now();
    let mut child = Command::new(binary)
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
