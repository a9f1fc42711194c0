//! How much is kept of what callers store and of the transcripts they ask for.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ConfigProblem;

/// Artifacts of each caller, until they are too many, too large or too old; the oldest go first. In
/// `artifacts/` of the runtime directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ArtifactsConfig {
    /// Bytes of one caller's in all. A larger one is refused.
    #[schemars(range(min = 1))]
    pub keep_bytes: u64,
    /// Number of one caller's.
    #[schemars(range(min = 1))]
    pub keep_count: usize,
    /// Minutes after they were stored last.
    #[schemars(range(min = 1))]
    pub keep_minutes: u64,
}

impl Default for ArtifactsConfig {
    fn default() -> Self {
        Self { keep_bytes: 256 * 1024 * 1024, keep_count: 10_000, keep_minutes: 7 * 24 * 60 }
    }
}

impl ArtifactsConfig {
    pub(crate) fn problems(&self, problems: &mut Vec<ConfigProblem>) {
        let values = [
            ("keep_bytes", self.keep_bytes),
            ("keep_count", self.keep_count as u64),
            ("keep_minutes", self.keep_minutes),
        ];
        for (name, _) in values.into_iter().filter(|(_, value)| *value == 0) {
            problems.push(ConfigProblem {
                path: format!("artifacts.{name}"),
                problem: "must be at least 1: what was stored must be readable for a moment".to_owned(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    #[test]
    fn what_is_stored_is_kept_for_a_moment_at_least() {
        let config: Config =
            serde_json::from_str(r#"{"artifacts":{"keep_bytes":0,"keep_minutes":0}}"#).unwrap();
        let paths: Vec<_> = config.problems().into_iter().map(|problem| problem.path).collect();
        assert_eq!(paths, ["artifacts.keep_bytes", "artifacts.keep_minutes"]);
    }
}
