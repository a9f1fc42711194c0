//! The configuration file, one per machine: each struct has its defaults in its `Default`, in one
//! place. Reading files, the environment and reporting lines is `config-loader`'s work.

mod api;
mod artifacts;
mod journal;
mod limits;
mod models;
mod otlp;
mod pool;
mod provisioning;
mod retry;
mod sessions;
mod workers;

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use api::{ApiConfig, LogConfig, LogFormat, PoolManagerdConfig, TlsConfig, TokensFile};
pub use artifacts::ArtifactsConfig;
pub use journal::JournalConfig;
pub use limits::{CallerLimits, LimitsConfig};
pub use models::{ModelsConfig, TrustPolicy};
pub use otlp::OtlpConfig;
pub use pool::{Auto, Devices, EngineKind, FullPolicy, OnExit, PoolConfig, PoolKind, QueueConfig};
pub use provisioning::{
    ArchiveSource, EngineSource, GitSource, GpuPolicy, PathSource, ProvisioningConfig, SdistSource,
    ToolkitPolicy,
};
pub use retry::RetryConfig;
pub use sessions::SessionsConfig;
pub use workers::{Network, NetworkError, WorkersConfig};

/// The whole file. Unknown keys are errors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The HTTP edge of orchestratord.
    pub api: ApiConfig,
    /// Where the bytes live.
    pub paths: PathsConfig,
    /// What is kept of tasks that have ended.
    pub journal: JournalConfig,
    /// What is kept of artifacts and transcripts.
    pub artifacts: ArtifactsConfig,
    /// Logging.
    pub log: LogConfig,
    /// Export of traces.
    pub otlp: OtlpConfig,
    /// How orchestratord reaches pool-managerd, and how many engines that one lets load at once.
    pub pool_managerd: PoolManagerdConfig,
    /// Which models are trusted, and how much room they may take.
    pub models: ModelsConfig,
    /// How much each caller may ask for, and how long an engine may be silent.
    pub limits: LimitsConfig,
    /// How long sessions live and how much each may use.
    pub sessions: SessionsConfig,
    /// Where engines that others run may be.
    pub workers: WorkersConfig,
    /// No pool of this machine may run on the CPU: `provisioning.gpu: auto` means `required` everywhere,
    /// and `off` is an error.
    pub require_gpu: bool,
    /// The pools of this machine.
    pub pools: Vec<PoolConfig>,
}

impl Default for Config {
    /// Zero config: one pool with the small model that ships with the project.
    fn default() -> Self {
        Self {
            api: ApiConfig::default(),
            paths: PathsConfig::default(),
            journal: JournalConfig::default(),
            artifacts: ArtifactsConfig::default(),
            log: LogConfig::default(),
            otlp: OtlpConfig::default(),
            pool_managerd: PoolManagerdConfig::default(),
            models: ModelsConfig::default(),
            limits: LimitsConfig::default(),
            sessions: SessionsConfig::default(),
            workers: WorkersConfig::default(),
            require_gpu: false,
            pools: vec![PoolConfig::haiku()],
        }
    }
}

/// Directories. Two daemons may share a cache, never a runtime directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PathsConfig {
    /// Handoffs, identity records, engine logs, the lock. Relative to the working directory.
    pub runtime: PathBuf,
    /// Engines, models and tools; shared, safe to delete. `~` is the home directory.
    pub cache: PathBuf,
}

impl Default for PathsConfig {
    fn default() -> Self {
        Self { runtime: PathBuf::from(".runtime"), cache: PathBuf::from("~/.cache/llama-orch") }
    }
}

impl PathsConfig {
    fn problems(&self, out: &mut Vec<ConfigProblem>) {
        for (key, path) in [("runtime", &self.runtime), ("cache", &self.cache)] {
            if path.as_os_str().is_empty() {
                let problem = "must name a directory; leave it out for the default".to_owned();
                out.push(ConfigProblem { path: format!("paths.{key}"), problem });
            }
        }
    }
}

/// A value that parses but cannot be: where it is in the file, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct ConfigProblem {
    /// Dotted path, as `pools[1].slots`.
    pub path: String,
    /// What is wrong and what to write instead.
    pub problem: String,
}

/// The numbers below `at` that are out of their bounds: key, value, least and most.
fn out_of_bounds<const N: usize>(
    at: &str,
    numbers: [(&str, u64, (u64, u64)); N],
    out: &mut Vec<ConfigProblem>,
) {
    for (key, value, (least, most)) in numbers {
        if !(least..=most).contains(&value) {
            let problem = format!("must be {least} to {most}");
            out.push(ConfigProblem { path: format!("{at}.{key}"), problem });
        }
    }
}

impl Config {
    /// Everything that the types alone cannot express. All problems at once, in file order.
    #[must_use]
    pub fn problems(&self) -> Vec<ConfigProblem> {
        let mut problems = Vec::new();
        self.api.problems(&mut problems);
        self.paths.problems(&mut problems);
        self.journal.problems(&mut problems);
        self.artifacts.problems(&mut problems);
        self.otlp.problems(&mut problems);
        self.pool_managerd.problems(&mut problems);
        self.models.problems(&mut problems);
        self.limits.problems(&mut problems);
        self.sessions.problems(&mut problems);
        let mut names = std::collections::BTreeMap::new();
        for (i, pool) in self.pools.iter().enumerate() {
            pool.problems(&format!("pools[{i}]"), &mut problems);
            if self.require_gpu && pool.provisioning.gpu == GpuPolicy::Off {
                problems.push(ConfigProblem {
                    path: format!("pools[{i}].provisioning.gpu"),
                    problem: "is off, and `require_gpu: true` forbids engines for the CPU on this machine"
                        .to_owned(),
                });
            }
            let own = std::iter::once(pool.id.as_str()).chain(pool.aliases.iter().map(String::as_str));
            for name in own {
                if let Some(other) = names.insert(name.to_owned(), i) {
                    problems.push(ConfigProblem {
                        path: format!("pools[{i}]"),
                        problem: format!(
                            "the name {name:?} is already taken by pools[{other}]; ids and aliases must be unique"
                        ),
                    });
                }
            }
        }
        problems
    }

    /// Carries `require_gpu` into the pools. Whoever loads a configuration calls it once.
    pub fn apply_gpu_gate(&mut self) {
        if self.require_gpu {
            let undecided = self.pools.iter_mut().filter(|pool| pool.provisioning.gpu == GpuPolicy::Auto);
            undecided.for_each(|pool| pool.provisioning.gpu = GpuPolicy::Required);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_config_is_valid_and_has_the_haiku_pool() {
        let config = Config::default();
        assert_eq!(config.problems(), vec![]);
        assert_eq!(config.pools.len(), 1);
        assert_eq!(config.pools[0].id.as_str(), "haiku");
    }

    #[test]
    fn two_pools_cannot_share_a_name() {
        let mut config = Config::default();
        let mut twin = PoolConfig::haiku();
        twin.aliases = vec![];
        config.pools.push(twin);
        let problems = config.problems();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].problem.contains("\"haiku\""));
    }

    #[test]
    fn an_archive_is_https_or_a_file_of_this_machine() {
        let mut config = Config::default();
        for (url, fine) in [
            ("https://a.example/x.tar.gz", true),
            ("file:/srv/x.tar.gz", true),
            ("file:///srv/x.tar.gz", true),
            ("http://a.example/x.tar.gz", false),
            ("https://me:secret@a.example/x.tar.gz", false),
            ("file:x.tar.gz", false),
            ("/srv/x.tar.gz", false),
            ("", false),
        ] {
            config.pools[0].provisioning.sources = vec![EngineSource::Archive(ArchiveSource {
                url: url.to_owned(),
                sha256: "1".repeat(64),
                subdir: std::path::PathBuf::new(),
                binary: None,
            })];
            let problems = config.problems();
            assert_eq!(problems.is_empty(), fine, "{url}: {problems:?}");
            assert!(problems.iter().all(|problem| problem.path.ends_with("sources[0].archive.url")), "{url}");
        }
    }

    /// POOLD-LAUNCH-004
    #[test]
    fn at_least_one_engine_may_load_and_not_a_host_full_of_them() {
        for (engines, fine) in [(0, false), (1, true), (64, true), (65, false), (u32::MAX, false)] {
            let mut config = Config::default();
            config.pool_managerd.loading_at_once = engines;
            let said: Vec<String> = config.problems().iter().map(ToString::to_string).collect();
            let refused = ["pool_managerd.loading_at_once: must be 1 to 64 engines"];
            assert_eq!(said, if fine { &[][..] } else { &refused[..] }, "{engines}");
        }
    }

    #[test]
    fn devices_that_are_none_are_told_what_they_may_be() {
        for wrong in ["nope", "0", "{}", "[{}]"] {
            let error = serde_json::from_str::<Devices>(&format!("\"{wrong}\"")).unwrap_err().to_string();
            assert!(error.contains("must be `auto`, or a list of indices"), "{error}");
        }
    }

    #[test]
    fn an_unknown_key_is_refused() {
        let error = serde_json::from_str::<Config>(r#"{"apy":{}}"#).unwrap_err().to_string();
        assert!(error.contains("unknown field `apy`"), "{error}");
    }
}
