//! Starting one engine: port, key, log, environment, write-ahead record, process. Blocks.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use child::{Launch, MemoryKills, SpawnError};
use wire::config::PoolConfig;
use wire::{ModelRecord, PreparedEngine};

use crate::admission::{Claim, Placement};
use crate::confine::sandbox;
use crate::durable;
use crate::engine::Engine;
use crate::engine_log::EngineLog;
use crate::record::{Record, RunDir, hex};

/// Marks every engine of one run directory, see [`RunDir::marker`].
pub(crate) const RUN_DIR_VARIABLE: &str = "LLORCH_RUN_DIR";

/// The few variables an engine inherits. Everything else, `LLAMA_ARG_*` above all, stays out.
const INHERITED: &[&str] = &["PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR", "TZ"];

/// What engines inherit from our environment, picked once at start.
#[derive(Debug, Clone, Default)]
pub struct InheritedEnv(BTreeMap<OsString, OsString>);

impl InheritedEnv {
    /// Picks the allowed variables out of an environment.
    pub fn pick<'a>(variables: impl IntoIterator<Item = (&'a OsStr, &'a OsStr)>) -> Self {
        let allowed = |name: &OsStr| INHERITED.iter().any(|a| name == *a);
        let picked = variables.into_iter().filter(|(name, _)| allowed(name));
        Self(picked.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }
}

/// A started process and everything that is known about it.
#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) engine: Engine,
    pub(crate) record: Record,
    pub(crate) api_key: String,
    pub(crate) log: EngineLog,
    pub(crate) model_bytes: u64,
    /// Tells a SIGKILL of the kernel's memory killer from any other.
    pub(crate) memory_kills: Option<MemoryKills>,
    /// What it has, or is promised, of the machine's memory.
    pub(crate) claim: Option<Claim>,
}

impl Life {
    pub(crate) fn url(&self) -> String {
        format!("http://{}:{}", Ipv4Addr::LOCALHOST, self.record.port)
    }
}

/// Nothing runs.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaunchError {
    #[error("cannot write {what} in the run directory; the engine is not started without it")]
    Durable {
        what: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("cannot find a free port on 127.0.0.1")]
    Port(#[source] io::Error),
    #[error("cannot open the engine's log {}", path.display())]
    Log {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Spawn(#[from] SpawnError),
}

impl LaunchError {
    /// Nothing is wrong with the engine; the disk recovers by itself.
    pub(crate) fn is_of_the_disk(&self) -> bool {
        matches!(self, Self::Durable { .. })
    }

    /// It was to be confined and cannot be; trying again will not help.
    pub(crate) fn is_unconfined(&self) -> bool {
        matches!(self, Self::Spawn(SpawnError::Sandbox { .. }))
    }

    /// The engine's binary is not there (or its loader, which looks the same).
    pub(crate) fn is_missing_program(&self) -> bool {
        matches!(self, Self::Spawn(SpawnError::Exec { source, .. }) if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Whose place a started engine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Berth {
    /// The replica's own.
    Own,
    /// Beside the engine that serves, to take its place later.
    Beside,
}

/// Starts the engine of a replica.
pub(crate) fn launch(
    berth: Berth,
    run: &RunDir,
    inherited: &InheritedEnv,
    pool: &PoolConfig,
    prepared: &PreparedEngine,
    placement: &Placement,
    model: Option<ModelRecord>,
) -> Result<Life, LaunchError> {
    let durable = |what| move |source| LaunchError::Durable { what, source };
    let port = if prepared.port == 0 { free_port().map_err(LaunchError::Port)? } else { prepared.port };
    let key = wire::ReplicaKey { pool: prepared.pool_id.clone(), replica: prepared.replica_id.clone() };
    let log_path = match berth {
        Berth::Own => run.log(&key),
        Berth::Beside => run.candidate_log(&key),
    };
    let write = |record: &Record| match berth {
        Berth::Own => run.write(record),
        Berth::Beside => run.write_candidate(record),
    };
    let (log, log_file) =
        EngineLog::open(log_path.clone()).map_err(|source| LaunchError::Log { path: log_path, source })?;

    let generation = run.next_generation(&key).map_err(durable("the generation"))?;
    let mut record = Record::intent(pool, prepared, model, generation, port);
    record.device_mask.clone_from(&placement.device_mask);
    record.log_begin = log.begin();
    let api_key = random_key().map_err(durable("the API key"))?;
    let key_file = run.api_key(&key, generation);
    durable::write_private(&key_file, api_key.as_bytes()).map_err(durable("the API key"))?;
    write(&record).map_err(durable("the identity record"))?;

    let mut launch = Launch::new(&prepared.binary_path, record.spawn_id.clone(), log_file)
        .args(&prepared.flags)
        .args(placement.tensor_split.iter().flat_map(|split| ["--tensor-split", split.as_str()]))
        .args(["--host", "127.0.0.1", "--port", &port.to_string(), "--api-key-file"])
        .args([&key_file])
        .directory(run.empty_home());
    let environment = environment(run, inherited, prepared, placement.device_mask.as_deref());
    if pool.sandbox {
        let libraries = environment.get(OsStr::new("LD_LIBRARY_PATH")).map(OsString::as_os_str);
        launch = launch.sandbox(sandbox(prepared, &key_file, &run.empty_home(), libraries, port));
    }
    for (name, value) in environment {
        launch = launch.env(name, value);
    }
    let child = launch.spawn()?;
    record.identity = Some(child.identity().clone());
    if let Err(source) = write(&record) {
        // The intent is on disk, so the process would be found again; but never half a record.
        let _gone_or_not_to_be_seen = child.kill();
        child::sweep(&record.spawn_id);
        return Err(LaunchError::Durable { what: "the identity record", source });
    }
    let memory_kills = MemoryKills::covering(child.pid());
    let model_bytes = size(&prepared.model_path);
    Ok(Life { engine: Engine::Own(child), record, api_key, log, model_bytes, memory_kills, claim: None })
}

/// Size of the model, all files of it; 0 when it is not there, which the engine will say better.
pub(crate) fn size(model: &Path) -> u64 {
    wire::split::files(model).iter().map(|file| std::fs::metadata(file).map_or(0, |m| m.len())).sum()
}

fn environment(
    run: &RunDir,
    inherited: &InheritedEnv,
    prepared: &PreparedEngine,
    device_mask: Option<&str>,
) -> BTreeMap<OsString, OsString> {
    let mut env = inherited.0.clone();
    let home = run.empty_home();
    env.insert("HOME".into(), home.clone().into());
    env.insert("XDG_CONFIG_HOME".into(), home.clone().into());
    env.insert("XDG_CACHE_HOME".into(), home.into());
    if let Some(mask) = device_mask {
        env.insert("CUDA_VISIBLE_DEVICES".into(), mask.into());
        env.insert("CUDA_DEVICE_ORDER".into(), "PCI_BUS_ID".into());
    }
    let steers_the_server = |name: &str| name.starts_with("LLAMA_ARG_") || name.starts_with("AIP_");
    for (name, value) in prepared.env.iter().filter(|(name, _)| !steers_the_server(name)) {
        env.insert(name.into(), value.into());
    }
    env.insert(RUN_DIR_VARIABLE.into(), run.marker().into());
    env
}

/// Free a moment ago. Somebody may take it before the engine does; that is noticed and tried again.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// 256 random bits in hex.
pub(crate) fn random_key() -> io::Result<String> {
    let mut bytes = [0_u8; 32];
    let mut filled = 0;
    while filled < bytes.len() {
        filled += rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(hex(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::{PoolId, ReplicaId};

    fn prepared() -> PreparedEngine {
        PreparedEngine {
            binary_path: "/bin/true".into(),
            flags: vec![],
            port: 0,
            host: "127.0.0.1".to_owned(),
            model_path: "/m".into(),
            engine_version: String::new(),
            pool_id: PoolId::try_new("p").unwrap(),
            replica_id: ReplicaId::nth(0),
            device_mask: Some("1".to_owned()),
            memory: None,
            engine_digest: String::new(),
            build_flags: Vec::new(),
            model_digest: String::new(),
            ctx: 1,
            slots: 1,
            env: BTreeMap::from([
                ("LLAMA_ARG_TOOLS".to_owned(), "1".to_owned()),
                ("GGML_X".to_owned(), "2".to_owned()),
            ]),
        }
    }

    #[test]
    fn an_engine_inherits_only_what_is_listed_and_never_the_servers_own_variables() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::open(dir.path()).unwrap();
        let ours = ["PATH", "LLAMA_ARG_TOOLS", "AIP_MODE", "HF_TOKEN", "HOME", "CUDA_VISIBLE_DEVICES"];
        let inherited = InheritedEnv::pick(ours.iter().map(|n| (OsStr::new(*n), OsStr::new("ours"))));
        let env = environment(&run, &inherited, &prepared(), Some("1"));
        let get = |name: &str| env.get(OsStr::new(name)).map(|v| v.to_str().unwrap());
        assert_eq!(get("PATH"), Some("ours"));
        assert_eq!(get("LLAMA_ARG_TOOLS"), None);
        assert_eq!(get("AIP_MODE"), None);
        assert_eq!(get("HF_TOKEN"), None);
        assert_ne!(get("HOME"), Some("ours"));
        assert_eq!(get("CUDA_VISIBLE_DEVICES"), Some("1"));
        assert_eq!(get("CUDA_DEVICE_ORDER"), Some("PCI_BUS_ID"));
        assert_eq!(get("GGML_X"), Some("2"));
    }

    /// POOLD-LAUNCH-003
    /// POOLD-SANDBOX-002
    #[test]
    fn an_engine_that_cannot_be_confined_is_not_started_again_and_says_what_is_missing() {
        let no_filters = child::SandboxError::Syscalls(child::FilterError::Unsupported);
        for (source, missing) in
            [(child::SandboxError::Unsupported, "Landlock"), (no_filters, "CONFIG_SECCOMP_FILTER")]
        {
            let error = LaunchError::from(SpawnError::Sandbox { program: "/bin/engine".into(), source });
            assert!(error.is_unconfined() && !error.is_of_the_disk() && !error.is_missing_program());
            assert!(crate::Cause::NoSandbox.needs_a_change());
            let said = crate::replica::with_causes(&error);
            assert!(said.contains("/bin/engine") && said.contains(missing), "{said}");
        }
    }

    #[test]
    fn each_key_is_64_hex_digits_and_new() {
        let (one, two) = (random_key().unwrap(), random_key().unwrap());
        assert_eq!(one.len(), 64);
        assert_ne!(one, two);
    }
}
