//! What is measured: processes of their own, each on a free port.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);

/// A child that ends with its value.
struct Owned(Child);

impl Owned {
    /// Asks it to end, and waits for that.
    fn end(&mut self) -> Result<ExitStatus> {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).context("naming a process")?);
        kill(pid, Signal::SIGTERM).context("asking a process to end")?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.0.try_wait().context("waiting for a process")? {
                return Ok(status);
            }
            ensure!(Instant::now() < deadline, "a process did not end within {} s", PATIENCE.as_secs());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The engine: `stub-llama`, paced, each token the time it was sent at.
pub(in crate::bench) struct StubProcess {
    addr: SocketAddr,
    _child: Owned,
}

impl StubProcess {
    pub(in crate::bench) fn start(binary: &Path, slots: u32, pace: Duration) -> Result<Self> {
        let addr = free_addr()?;
        let child = Command::new(binary)
            .args(["--port", &addr.port().to_string(), "--parallel", &slots.to_string()])
            .args(["--ctx-size", &(u64::from(slots) * 65_536).min(u64::from(u32::MAX)).to_string()])
            .args(["--stub-token-ms", &pace.as_millis().to_string(), "--stub-stamp"])
            // Whoever tries another number means orchestratord's.
            .env_remove("TOKIO_WORKER_THREADS")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("starting stub-llama")?;
        until_listening(addr)?;
        Ok(Self { addr, _child: Owned(child) })
    }

    pub(in crate::bench) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Waits until no generation of the measurement before runs any more.
    pub(in crate::bench) async fn until_idle(&self) -> Result<()> {
        let client = reqwest::Client::builder().no_proxy().build().context("building a client")?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let slots = client.get(format!("http://{}/slots", self.addr)).send().await?.text().await?;
            if !slots.contains("\"is_processing\":true") {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "generations went on after their clients had gone");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// nginx as a plain, unbuffered reverse proxy.
pub(in crate::bench) struct Nginx {
    addr: SocketAddr,
    child: Owned,
    _dir: TempDir,
}

impl Nginx {
    /// `None` where it is not installed.
    pub(in crate::bench) fn start(upstream: SocketAddr) -> Result<Option<Self>> {
        if Command::new("nginx").arg("-v").stderr(Stdio::null()).status().is_err() {
            return Ok(None);
        }
        let (addr, dir) = (free_addr()?, TempDir::new().context("making nginx's directory")?);
        let at = dir.path().display();
        let config = format!(
            "daemon off; worker_processes 1; pid {at}/pid; error_log {at}/error.log;\n\
             events {{ worker_connections 16384; }}\n\
             http {{ access_log {at}/access.log; client_body_temp_path {at}/body; proxy_temp_path {at}/proxy;\n\
             fastcgi_temp_path {at}/f; uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;\n\
             upstream engine {{ server {upstream}; keepalive 64; }}\n\
             server {{ listen {addr}; location / {{ proxy_pass http://engine; proxy_http_version 1.1;\n\
             proxy_set_header Connection \"\"; proxy_buffering off; }} }} }}\n"
        );
        let file = dir.path().join("nginx.conf");
        std::fs::write(&file, config).context("writing nginx's configuration")?;
        let child = Command::new("nginx")
            .arg("-c")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("starting nginx")?;
        let nginx = Self { addr, child: Owned(child), _dir: dir };
        until_listening(addr)?;
        nginx.until_it_works()?;
        Ok(Some(nginx))
    }

    /// The master listens before it has forked the worker, whose CPU time is what is measured.
    fn until_it_works(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.pids()?.len() < 2 {
            ensure!(Instant::now() < deadline, "nginx started no worker");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    pub(in crate::bench) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Master and workers.
    pub(in crate::bench) fn pids(&self) -> Result<Vec<u32>> {
        let master = self.child.0.id();
        let children = std::fs::read_to_string(format!("/proc/{master}/task/{master}/children"))
            .context("listing nginx's workers")?;
        let workers = children.split_whitespace().filter_map(|pid| pid.parse().ok());
        Ok(std::iter::once(master).chain(workers).collect())
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // So that the master takes its workers with it.
        let _ = self.child.end();
    }
}

/// orchestratord, bound to the engine by its development shim.
pub(in crate::bench) struct Orchestratord {
    addr: SocketAddr,
    child: Owned,
    _dir: TempDir,
}

impl Orchestratord {
    pub(in crate::bench) fn start(binary: &Path, engine: SocketAddr) -> Result<Self> {
        Self::start_with(binary, engine, None)
    }

    /// With so many threads that carry streams; `None`: as many as it chooses.
    pub(in crate::bench) fn start_with(
        binary: &Path,
        engine: SocketAddr,
        threads: Option<u32>,
    ) -> Result<Self> {
        let (addr, dir) = (free_addr()?, TempDir::new().context("making orchestratord's directory")?);
        let log = std::fs::File::create(dir.path().join("log")).context("making orchestratord's log")?;
        let child = Command::new(binary)
            .envs(threads.map(|threads| ("TOKIO_WORKER_THREADS", threads.to_string())))
            // Somebody's own is not what is measured.
            .env_remove("ORCHD_CONFIG")
            .env("ORCHD_ADDR", addr.to_string())
            .env("ORCHD_RUNTIME_DIR", dir.path().join("runtime"))
            .env("ORCHD_LLAMACPP_URL", format!("http://{engine}"))
            // An instrumented one writes what it counts to where it was built to.
            .env_remove("LLVM_PROFILE_FILE")
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("starting orchestratord")?;
        let mut started = Self { addr, child: Owned(child), _dir: dir };
        let stdout = started.child.0.stdout.take().context("taking orchestratord's stdout")?;
        let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
        if !lines.any(|line| line.contains("curl -N")) {
            bail!("orchestratord ended before it was ready");
        }
        Ok(started)
    }

    pub(in crate::bench) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(in crate::bench) fn pid(&self) -> u32 {
        self.child.0.id()
    }

    /// Has it end in order: only then does it write what was counted in it.
    pub(in crate::bench) fn stop(mut self) -> Result<()> {
        let status = self.child.end()?;
        ensure!(status.success(), "orchestratord ended with {status}");
        Ok(())
    }
}

fn free_addr() -> Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).context("finding a free port")
}

fn until_listening(addr: SocketAddr) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while std::net::TcpStream::connect(addr).is_err() {
        ensure!(Instant::now() < deadline, "nobody listens on {addr}");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
