//! What orchestratord keeps of tasks that have ended.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ConfigProblem;

/// How long an ended task can be read: until there are too many, too large or too old ones. In memory
/// and in the journal of the runtime directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct JournalConfig {
    /// Ended tasks kept at most.
    #[schemars(range(min = 1))]
    pub keep_tasks: usize,
    /// Bytes of their events in all.
    #[schemars(range(min = 1))]
    pub keep_bytes: usize,
    /// Minutes after their end.
    #[schemars(range(min = 1))]
    pub keep_minutes: u64,
    /// Bytes of the events of tasks that are not kept any more, in memory, for those who still read them.
    /// Beyond them the readers of the task that was let go of first are told `READER_TOO_SLOW`.
    pub keep_unread_bytes: usize,
}

impl Default for JournalConfig {
    fn default() -> Self {
        Self {
            keep_tasks: 1_000,
            keep_bytes: 64 * 1024 * 1024,
            keep_minutes: 60,
            keep_unread_bytes: 64 * 1024 * 1024,
        }
    }
}

impl JournalConfig {
    pub(crate) fn problems(&self, problems: &mut Vec<ConfigProblem>) {
        let mut at_least_one = |name: &str, value: u64| {
            if value == 0 {
                problems.push(ConfigProblem {
                    path: format!("journal.{name}"),
                    problem: "must be at least 1: a task that has ended must be readable for a moment"
                        .to_owned(),
                });
            }
        };
        at_least_one("keep_tasks", self.keep_tasks as u64);
        at_least_one("keep_bytes", self.keep_bytes as u64);
        at_least_one("keep_minutes", self.keep_minutes);
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    #[test]
    fn nothing_can_be_kept_for_no_time_at_all() {
        let config: Config =
            serde_json::from_str(r#"{"journal":{"keep_tasks":0,"keep_bytes":0,"keep_minutes":0}}"#).unwrap();
        let paths: Vec<_> = config.problems().into_iter().map(|problem| problem.path).collect();
        assert_eq!(paths, ["journal.keep_tasks", "journal.keep_bytes", "journal.keep_minutes"]);
    }
}
