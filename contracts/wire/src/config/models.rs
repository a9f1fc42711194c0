//! Which models are trusted, and how much room they may take.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ConfigProblem;

/// Rules for all models of this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ModelsConfig {
    /// What a model needs before it is used.
    pub trust: TrustPolicy,
    /// With `trust: strict`: the beginnings of references that are allowed, as `hf:org/`,
    /// `https://host/dir/` or `file:/models`. Empty: from anywhere, as long as there is a digest.
    pub allowed_sources: Vec<String>,
    /// A program and its arguments; the path of the model file is added. It must end with 0 before the
    /// file is used, once for each state of the file. Empty: nobody is asked.
    pub verify_command: Vec<String>,
    /// Room for fetched models in GiB. When it would be exceeded, the least recently used go first,
    /// never a pinned one or one that runs. Null: as much as the disk has.
    pub quota_gib: Option<u64>,
}

/// What a model needs before it is used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", expecting = "permissive or strict")]
pub enum TrustPolicy {
    /// A digest is checked where there is one.
    #[default]
    Permissive,
    /// Without a digest from the hub or the configuration it is refused, and so is another source than
    /// `allowed_sources`.
    Strict,
}

impl ModelsConfig {
    pub(super) fn problems(&self, out: &mut Vec<ConfigProblem>) {
        let mut check = |ok: bool, key: &str, problem: &str| {
            if !ok {
                out.push(ConfigProblem { path: format!("models.{key}"), problem: problem.to_owned() });
            }
        };
        check(self.quota_gib != Some(0), "quota_gib", "must be at least 1, or null for no quota");
        for (i, source) in self.allowed_sources.iter().enumerate() {
            let known =
                ["hf:", "https://", "file:/", "builtin:"].iter().any(|scheme| source.starts_with(scheme));
            let meant = meant(source).map(|meant| format!("; did you mean {meant:?}?")).unwrap_or_default();
            let problem =
                format!("must begin with hf:, https://, file:/ or builtin:; here it is {source:?}{meant}");
            check(known, &format!("allowed_sources[{i}]"), &problem);
        }
        check(
            self.verify_command.first().is_none_or(|program| program.starts_with('/')),
            "verify_command",
            "must begin with the absolute path of a program",
        );
    }
}

/// What somebody who wrote this most likely meant.
fn meant(source: &str) -> Option<String> {
    match source.split_once(':') {
        Some(("http", rest)) => Some(format!("https:{rest}")),
        None if source.starts_with('/') => Some(format!("file:{source}")),
        None if source.starts_with(|c: char| c.is_ascii_alphanumeric()) => Some(format!("hf:{source}")),
        _ => None,
    }
}
