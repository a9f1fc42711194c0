//! One pool: a model, an engine configuration, its replicas and its queue.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ConfigProblem, ProvisioningConfig};
use crate::PoolId;

/// One pool. `id` and `model` are mandatory, everything else has a default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PoolConfig {
    /// Unique on this machine.
    pub id: PoolId,
    /// The engine; `llamacpp` is the only one.
    #[serde(default)]
    pub engine: EngineKind,
    /// `builtin:…`, `hf:org/repo[:QUANT|/file][@revision]`, `https://…`, `file:…` or a path.
    pub model: String,
    /// SHA-256 (hex) the model must have; for a split set, the one that `ModelRecord` describes.
    #[serde(default)]
    pub model_sha256: Option<String>,
    /// Further names that clients may use for this pool.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// What the model is for.
    #[serde(default)]
    pub kind: PoolKind,
    /// Engine processes.
    #[serde(default = "one")]
    pub replicas: u32,
    /// Which GPUs.
    #[serde(default)]
    pub devices: Devices,
    /// How a model is split over several `devices`, as `[24, 12]`; without it in proportion to what is free
    /// on them when the engine starts.
    #[serde(default)]
    pub tensor_split: Option<Vec<f64>>,
    /// Starts an engine also where its estimate says that there is too little memory for it.
    #[serde(default)]
    pub allow_oversubscribe: bool,
    /// Tokens of context per slot.
    #[serde(default = "default_ctx")]
    pub ctx: u32,
    /// Concurrent generations per replica.
    #[serde(default = "one")]
    pub slots: u32,
    /// Same seed, same bytes: one slot, no continuous batching, no prompt cache.
    #[serde(default)]
    pub deterministic: bool,
    /// The admission queue.
    #[serde(default)]
    pub queue: QueueConfig,
    /// What a graceful exit of pool-managerd does with the engine.
    #[serde(default)]
    pub on_exit: OnExit,
    /// How the engine is fetched and built.
    #[serde(default)]
    pub provisioning: ProvisioningConfig,
    /// Further engine flags, from the allow-list of performance and sampling flags.
    #[serde(default)]
    pub flags: Vec<String>,
    /// Permits flags outside the allow-list (never the refused ones).
    #[serde(default)]
    pub unsafe_flags: bool,
    /// Confines the engine (Linux 5.13 and newer, with Landlock and seccomp): it reads its program, its
    /// model and the system's libraries, uses the graphics cards, writes nowhere but its log, gains no
    /// privileges and makes none of the system calls that lead to other processes or into the kernel.
    #[serde(default)]
    pub sandbox: bool,
    /// Further environment of the engine.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

/// The engine family.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", expecting = "llamacpp")]
pub enum EngineKind {
    /// llama.cpp's `llama-server`.
    #[default]
    Llamacpp,
}

/// What the model is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", expecting = "chat, embedding or rerank")]
pub enum PoolKind {
    /// Chat and completion.
    #[default]
    Chat,
    /// Embeddings.
    Embedding,
    /// Reranking.
    Rerank,
}

/// Which GPUs a pool may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "devices: must be `auto`, or a list of indices as `nvidia-smi` counts them, or of UUIDs as `nvidia-smi -L` prints them"
)]
pub enum Devices {
    /// `auto`: the one card with the most free memory.
    Auto(Auto),
    /// Indices, as `nvidia-smi` counts them.
    Indices(Vec<u32>),
    /// UUIDs, as `nvidia-smi -L` prints them.
    Uuids(Vec<String>),
}

/// The word `auto`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Auto {
    /// `auto`.
    #[default]
    Auto,
}

impl Default for Devices {
    fn default() -> Self {
        Self::Auto(Auto::Auto)
    }
}

/// The admission queue of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct QueueConfig {
    /// Tasks that may wait. While several callers come, each has an equal share of the places for
    /// certain.
    pub capacity: u32,
    /// What happens to one more.
    pub full_policy: FullPolicy,
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self { capacity: 256, full_policy: FullPolicy::Reject }
    }
}

/// What a full queue does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", expecting = "reject or drop-lru")]
pub enum FullPolicy {
    /// Refuse the new task with 429.
    #[default]
    Reject,
    /// Drop a waiting batch task, the oldest of the caller with the most of them; refuse when there is
    /// none.
    DropLru,
}

/// What a graceful exit of the manager does with an engine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", expecting = "stop or keep")]
pub enum OnExit {
    /// Stop it.
    #[default]
    Stop,
    /// Leave it running for the next manager to adopt.
    Keep,
}

fn one() -> u32 {
    1
}
fn default_ctx() -> u32 {
    2048
}

impl PoolConfig {
    /// A pool with every default.
    #[must_use]
    pub fn new(id: PoolId, model: impl Into<String>) -> Self {
        Self {
            id,
            engine: EngineKind::default(),
            model: model.into(),
            model_sha256: None,
            aliases: Vec::new(),
            kind: PoolKind::default(),
            replicas: one(),
            devices: Devices::default(),
            tensor_split: None,
            allow_oversubscribe: false,
            ctx: default_ctx(),
            slots: one(),
            deterministic: false,
            queue: QueueConfig::default(),
            on_exit: OnExit::default(),
            provisioning: ProvisioningConfig::default(),
            flags: Vec::new(),
            unsafe_flags: false,
            sandbox: false,
            env: BTreeMap::new(),
        }
    }

    /// The pool of zero config.
    #[must_use]
    pub fn haiku() -> Self {
        #[expect(clippy::expect_used, reason = "a literal that the rule accepts; a test holds it")]
        let id = PoolId::try_new("haiku").expect("valid literal");
        Self { deterministic: true, ..Self::new(id, "builtin:haiku") }
    }

    fn device_problem(&self) -> Option<(&'static str, String)> {
        let named: Vec<String> = match &self.devices {
            Devices::Auto(_) => Vec::new(),
            Devices::Indices(indices) => indices.iter().map(u32::to_string).collect(),
            Devices::Uuids(uuids) => uuids.clone(),
        };
        if named.is_empty() && self.devices != Devices::default() {
            return Some(("devices", "must name at least one card, or be auto".to_owned()));
        }
        if let Some(twice) = named.iter().enumerate().find_map(|(i, d)| named[..i].contains(d).then_some(d)) {
            return Some(("devices", format!("names card {twice} twice")));
        }
        let split = self.tensor_split.as_ref()?;
        if named.is_empty() {
            let problem =
                "splits a model over the cards that `devices` names, and that is auto: write them as [0, 1]";
            return Some(("tensor_split", problem.to_owned()));
        }
        if split.len() != named.len() {
            let (parts, cards) = (split.len(), named.len());
            return Some(("tensor_split", format!("has {parts} parts, and `devices` names {cards} cards")));
        }
        let usable = split.iter().all(|part| part.is_finite() && (0.0..=1e9).contains(part));
        let some = split.iter().any(|part| *part > 0.0);
        (!usable || !some).then(|| {
            ("tensor_split", "must be numbers from 0 to 1000000000, and not all of them 0".to_owned())
        })
    }

    pub(super) fn problems(&self, at: &str, out: &mut Vec<ConfigProblem>) {
        let mut check = |ok: bool, key: &str, problem: &str| {
            if !ok {
                out.push(ConfigProblem { path: format!("{at}.{key}"), problem: problem.to_owned() });
            }
        };
        check((1..=64).contains(&self.replicas), "replicas", "must be 1 to 64");
        check((1..=256).contains(&self.slots), "slots", "must be 1 to 256");
        check((16..=16_777_216).contains(&self.ctx), "ctx", "must be 16 to 16777216 tokens per slot");
        check(self.queue.capacity >= 1, "queue.capacity", "must be at least 1");
        check(!self.model.trim().is_empty(), "model", "must name a model, as builtin:haiku");
        check(
            !self.deterministic || self.slots == 1,
            "slots",
            "a deterministic pool has exactly one slot: output depends on what else is in the batch",
        );
        check(
            self.aliases.iter().all(|alias| !alias.trim().is_empty()),
            "aliases",
            "must be names by which clients may call the pool; one is empty",
        );
        check(!self.provisioning.sources.is_empty(), "provisioning.sources", "must list at least one source");
        let is_sha256 = |s: &String| s.len() == 64 && s.bytes().all(|b| b.is_ascii_hexdigit());
        check(
            self.model_sha256.as_ref().is_none_or(is_sha256),
            "model_sha256",
            "must be 64 hexadecimal digits",
        );
        if let Some(problem) = self.device_problem() {
            out.push(ConfigProblem { path: format!("{at}.{}", problem.0), problem: problem.1 });
        }
        self.provisioning.problems(at, out);
    }
}
