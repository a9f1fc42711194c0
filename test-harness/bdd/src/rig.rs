//! One scenario's machine: a directory with a cache, a runtime directory, a model of random weights
//! and a configuration; and the programs that run on it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;
use test_harness_e2e_haiku::{Api, Schema, built_binary};

use crate::process::{Process, read};
use crate::wait::{until, until_within};

/// What a directory is called while it is taken away.
const ASIDE: &str = "aside";

/// How long a program that is to end is waited for; it only bounds a scenario that fails.
const RUN_LIMIT: Duration = Duration::from_secs(300);

/// How often it is looked at.
const RUN_PERIOD: Duration = Duration::from_millis(10);

/// What `engine-provisioner` does instead of preparing engines, by the first word of it.
const COMMANDS: [&str; 6] = ["plan", "list", "verify", "gc", "models", "bundle"];

/// A program that ran to its end.
pub struct Ended {
    /// Its exit code.
    pub code: Option<i32>,
    /// What it printed for programs.
    pub stdout: String,
    /// What it said to people.
    pub stderr: String,
}

/// One scenario's machine.
pub struct Rig {
    dir: TempDir,
    stub: PathBuf,
    /// The tester's own cache, where the real engine is.
    shared_cache: bool,
    /// The real engine's binary.
    engine: Option<PathBuf>,
}

impl Rig {
    /// A new one. The binaries are built by the first scenario and found by the others.
    pub fn new() -> Result<Self> {
        let dir = TempDir::new().context("making a directory for the scenario")?;
        let shape = gguf_random::Shape { name: "random".to_owned(), ..Default::default() };
        shape.write(&dir.path().join("model.gguf")).context("writing the model")?;
        Ok(Self { dir, stub: built_binary("stub-llama")?, shared_cache: false, engine: None })
    }

    /// From now on engines and models come from the cache that all suites share.
    pub fn use_shared_cache(&mut self) {
        self.shared_cache = true;
    }

    /// From now on `$ENGINE` is the real engine; the cache stays the scenario's own.
    pub fn use_engine(&mut self, binary: &Path) {
        self.engine = Some(binary.to_owned());
    }

    /// A path in the scenario's directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The handoff directory.
    #[must_use]
    pub fn handoffs(&self) -> PathBuf {
        self.path("runtime/engines")
    }

    /// A model of random weights that is slow enough on the real engine to be interrupted. One thread is
    /// enough for it: several wait for one another at every layer, for ever where others want the cores.
    pub fn slow_model(&self) -> Result<()> {
        let shape = gguf_random::Shape {
            name: "slow".to_owned(),
            layers: 4,
            width: 256,
            heads: 8,
            // Room for an answer that is still being written when everything else of its scenario is done.
            ctx: 16_384,
            endless: true,
            ..Default::default()
        };
        shape.write(&self.path("slow.gguf")).context("writing the slow model")
    }

    /// A directory is no directory any more, as on a disk that fails: nothing can be made in it.
    pub fn take_away(&self, dir: &str) -> Result<()> {
        let (dir, aside) = (self.path(dir), self.path(ASIDE));
        std::fs::rename(&dir, aside).with_context(|| format!("taking {} away", dir.display()))?;
        std::fs::write(&dir, "no directory").context("putting a file in its place")
    }

    /// It is there again, with what was in it.
    pub fn put_back(&self, dir: &str) -> Result<()> {
        let dir = self.path(dir);
        std::fs::remove_file(&dir).context("removing what stands in its place")?;
        std::fs::rename(self.path(ASIDE), &dir).with_context(|| format!("putting {} back", dir.display()))
    }

    /// A machine with two cards, as far as `nvidia-smi` says it and `nvcc` could build for them.
    pub fn two_cards(&self) -> Result<()> {
        std::fs::create_dir_all(self.path("bin")).context("making a directory of programs")?;
        self.script(
            "bin/nvidia-smi",
            "echo '0, GPU-aa, NVIDIA GeForce RTX 3090, 8.6, 24576, 1000, 580.95, 0'\n\
             echo '1, GPU-bb, NVIDIA GeForce RTX 3060, 8.6, 12288, 12000, 580.95, 0'",
        )?;
        self.script("bin/nvcc", "echo 'Cuda compilation tools, release 13.0, V13.0.88'")
    }

    /// A shell script.
    pub fn script(&self, name: &str, body: &str) -> Result<()> {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::write(self.path(name), format!("#!/bin/sh\n{body}\n")).context("writing a script")?;
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(self.path(name), mode).context("making a script executable")
    }

    /// What goes wrong in the lives of the fake engine that begin from now on: `mute=1`, a switch a line.
    pub fn next_life(&self, switches: &str) -> Result<()> {
        std::fs::write(self.path("switches"), switches).context("writing the engine's switches")
    }

    /// Writes the configuration. `$STUB` is the fake engine, `$ENGINE` the real one, `$MODEL` the model, `$DIR` the directory;
    /// `engine: $STUB_ENGINE` stands for the provisioning that takes the fake engine as it is.
    pub fn configure(&self, yaml: &str) -> Result<()> {
        let provisioning = format!(
            "provisioning: {{ gpu: off, sources: [{{ path: {{ binary: '{}' }} }}] }}",
            self.stub.display()
        );
        let yaml = yaml.trim_start_matches('\n').replace("engine: $STUB_ENGINE", &provisioning);
        let text = match yaml.trim() {
            "{}" => String::new(),
            yaml => format!("{}\n", self.filled_in(yaml)),
        };
        // Behind the rest, so that lines have the numbers that the scenario gave them.
        let port =
            if yaml.contains("pool_managerd:") { "" } else { "pool_managerd: { listen: 127.0.0.1:0 }\n" };
        let text = text + port;
        std::fs::write(self.path("config.yaml"), text).context("writing the configuration")
    }

    /// A text with this machine's paths in place of their names.
    #[must_use]
    pub fn filled_in(&self, text: &str) -> String {
        let engine = self.engine.as_deref().unwrap_or(Path::new("$ENGINE"));
        text.replace("$STUB", &self.stub.display().to_string())
            .replace("$ENGINE", &engine.display().to_string())
            .replace("$MODEL", &format!("file:{}", self.path("model.gguf").display()))
            .replace("$SLOW", &format!("file:{}", self.path("slow.gguf").display()))
            .replace("$DIR", &self.dir.path().display().to_string())
    }

    /// A program of ours, with this machine's directories and nothing of the tester's settings.
    pub fn program(&self, name: &str) -> Result<Command> {
        let mut command = Command::new(built_binary(name)?);
        command
            .env("ORCHD_ADDR", "127.0.0.1:0")
            .env("ORCHD_RUNTIME_DIR", self.path("runtime"))
            .env_remove("ORCHD_LLAMACPP_URL")
            .env_remove("LLAMA_ORCH_TOKEN")
            .env_remove("RUST_LOG")
            .current_dir(self.dir.path());
        if !self.shared_cache {
            command.env("LLAMA_ORCH_CACHE", self.path("cache"));
            // Whatever the tester's machine has, a scenario's has the cards that it says.
            command.env("LLAMA_ORCH_DEVICES", if self.path("bin").exists() { "nvidia-smi" } else { "none" });
        }
        if self.path("bin").exists() {
            // No toolkit of the tester's.
            let dirs = [self.path("bin"), "/usr/bin".into(), "/bin".into()];
            command.env("PATH", std::env::join_paths(dirs).context("joining PATH")?).env_remove("CUDA_PATH");
        }
        Ok(command)
    }

    /// Runs a program to its end with the configuration and these arguments.
    pub async fn run(&self, name: &str, arguments: &[&str], vars: &[(&str, &str)]) -> Result<Ended> {
        let mut command = self.program(name)?;
        command.args(["--config", "config.yaml"]).args(arguments);
        command.envs(vars.iter().copied()).stdin(Stdio::null());
        let (stdout, stderr) = (self.path("stdout"), self.path("stderr"));
        let file = |path: &Path| File::create(path).with_context(|| format!("making {}", path.display()));
        command.stdout(file(&stdout)?).stderr(file(&stderr)?);
        let mut child = command.spawn().with_context(|| format!("running {name}"))?;
        let mut code = None;
        let what = format!("{name} ends");
        let over = until_within(&what, RUN_LIMIT, RUN_PERIOD, || {
            let looked = child.try_wait().context("waiting for it");
            let over = looked.map(|status| status.map(|status| code = status.code()).is_some());
            async { over }
        });
        let over = over.await;
        let mut ended = Ended { code, stdout: read(&stdout), stderr: read(&stderr) };
        // A daemon that was to refuse its configuration and serves must not make a scenario wait for ever.
        if let Err(error) = over {
            child.kill().context("killing what does not end")?;
            child.wait().context("waiting for it")?;
            ended.stderr.push_str(&format!("\n{error:#}"));
        }
        if name == "engine-provisioner" && !arguments.iter().any(|word| COMMANDS.contains(word)) {
            let engines = Schema::PreparedEngine.check_each(&ended.stdout)?;
            ensure!(engines > 0 || ended.code != Some(0), "it ended well and printed no engine");
        }
        Ok(ended)
    }

    /// Starts orchestratord with the configuration and waits until it listens.
    pub async fn start_orchestratord(&self) -> Result<(Process, Api)> {
        self.start_orchestratord_on("127.0.0.1:0").await
    }

    /// The same at another address of this machine.
    pub async fn start_orchestratord_on(&self, address: &str) -> Result<(Process, Api)> {
        let mut command = self.program("orchestratord")?;
        command.args(["--config", "config.yaml"]).env("ORCHD_ADDR", address);
        self.start_as(command).await
    }

    /// The same by a command that ends in being orchestratord.
    pub async fn start_as(&self, command: Command) -> Result<(Process, Api)> {
        let process = Process::start(command, self.path("orchestratord.log"))?;
        let config =
            std::fs::read_to_string(self.path("config.yaml")).context("reading the configuration")?;
        let mut address = None;
        until("orchestratord listens", || {
            address = listening(&process.said(), "orchestratord");
            let found = address.is_some();
            async move { Ok(found) }
        })
        .await
        .with_context(|| format!("orchestratord said:\n{}", process.said()))?;
        // It took it, so an editor that goes by the schema takes it, too.
        Schema::check_config(&config)?;
        let api = Api::new(&format!("http://{}", address.unwrap_or_default()))?;
        Ok((process, api))
    }

    /// Starts an engine that somebody else runs, and says its URL once it listens.
    pub async fn start_stub(&self, name: &str) -> Result<(Process, String)> {
        let mut command = Command::new(&self.stub);
        command.args(["--host", "127.0.0.1", "--port", "0", "--metrics"]);
        command.env("STUB_SWITCHES_FILE", self.path("switches"));
        let process = Process::start(command, self.path(&format!("{name}.log")))?;
        let mut address = None;
        until("the engine listens", || {
            address = listening(&process.said(), "HTTP server");
            let found = address.is_some();
            async move { Ok(found) }
        })
        .await?;
        Ok((process, format!("http://{}", address.unwrap_or_default())))
    }

    /// The handoff of a replica, when there is one.
    #[must_use]
    pub fn handoff(&self, pool: &str, replica: &str) -> Option<Value> {
        let text = std::fs::read(self.handoffs().join(format!("{pool}.{replica}.json"))).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// The key of the only engine that a pool's first replica has had.
    pub fn engine_key(&self, pool: &str) -> Result<String> {
        let path = self.path(&format!("runtime/run/{pool}.r0.1.key"));
        std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    }

    /// Living processes that carry the mark of this machine's engines, grandchildren included.
    #[must_use]
    pub fn engines(&self) -> Vec<i32> {
        let dir = self.path("runtime/run");
        let dir = std::fs::canonicalize(&dir).unwrap_or(dir);
        let marked = child::processes_with("LLORCH_RUN_DIR", &dir.display().to_string());
        marked.iter().filter_map(|process| i32::try_from(process.pid()).ok()).collect()
    }

    /// Kills them.
    pub fn kill_engines(&self) {
        for pid in self.engines() {
            // Gone meanwhile is as good.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }

    /// Publishes a handoff by hand, whole at once, as the page on handoffs asks of anyone.
    pub fn publish(&self, name: &str, text: &str) -> Result<()> {
        use std::os::unix::fs::PermissionsExt as _;
        let part = self.handoffs().join(format!(".{name}.part"));
        std::fs::write(&part, text).context("writing a handoff")?;
        std::fs::set_permissions(&part, std::fs::Permissions::from_mode(0o600)).context("its mode")?;
        std::fs::rename(&part, self.handoffs().join(name)).context("naming a handoff")
    }
}

/// The address in the log line that says where a daemon listens, in either form of the log; of one that
/// listens at every address of this machine, the one that leads to it from here.
#[must_use]
pub fn listening(log: &str, program: &str) -> Option<String> {
    let says = |line: &&str| line.contains("listening") || line.contains("is up");
    let line = log.lines().find(|line| says(line) && line.contains(program))?;
    let port = ["127.0.0.1:", "0.0.0.0:"].iter().find_map(|host| Some(line.split_once(host)?.1))?;
    let end = port.find(|c: char| !c.is_ascii_digit()).unwrap_or(port.len());
    Some(format!("127.0.0.1:{}", &port[..end]))
}

/// Whether a process with this number lives.
#[must_use]
pub fn lives(pid: u64) -> bool {
    Path::new(&format!("/proc/{pid}/stat")).exists()
}
